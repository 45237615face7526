"""Accounts of parties with a privacy budget, for tests that run whatever is bundled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.engine.accounts import create
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.spec import MeshSpec


def accounts(spec: MeshSpec, folder: Path) -> Path | None:
    """The folder of a mesh's accounts, made where there is none yet; None where no party has a budget."""
    plan = make_plan(spec, registry())
    if not plan.withholding:
        return None
    if not folder.exists():
        create(plan, folder)
    return folder
