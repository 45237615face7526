"""Frozen weights in a run's folder: where they were read from, by path and sha256, in place of a copy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.agents.build import origin
from kdmesh.errors import MeshError
from kdmesh.files import REFERENCE, sha256, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.agents.host import Host


def sources(host: Host, agent: str) -> list[Path]:
    """The files that frozen weights were read from and still are; none where the folder is to hold the weights.

    Of a model that has a form of its own these are its configuration and weights, else one safetensors file.
    """
    plan, owner = host.plan, host.plan.owner[agent]
    spec, module = plan.spec.agents, host.agents[agent].module
    frozen = owner not in plan.trainable and spec[owner].ema is None and owner not in host.blueprint.modules
    if not frozen or spec[agent].saved == "copy":
        return []
    weights = spec[origin(plan, owner)].weights
    own: Any = getattr(module, "sources", None)
    if own is not None:
        return [] if weights is not None else own()
    return [] if weights is None else [Path(weights)]


def refer(root: Path, home: Path, files: Sequence[Path]) -> None:
    """Write into ``root`` which files an agent's weights are; ``home``: the folder that this will be."""
    told = [{"path": os.path.relpath(file.resolve(), home.resolve()), "sha256": sha256(file)} for file in files]
    write_json(root / REFERENCE, {"kdmesh": 1, "files": told})


def follow(root: Path, home: Path | None = None) -> list[Path]:
    """The files that a folder refers to, none where it holds its weights. MeshError where they are no longer those."""
    if not (root / REFERENCE).is_file():
        return []
    told = json.loads((root / REFERENCE).read_text(encoding="utf-8"))["files"]
    found = []
    for one in told:
        file = Path(os.path.normpath((home or root).resolve() / one["path"]))
        if not file.is_file() or sha256(file) != one["sha256"]:
            raise MeshError(
                f"this agent's weights are in {file}, which {'has changed' if file.is_file() else 'is not there'}",
                file=str(root),
                where=REFERENCE,
                instead="put it back as it was, or run again with `saved: copy` on this agent",
            )
        found.append(file)
    if not found:
        raise MeshError(
            "it refers to no file", file=str(root), where=REFERENCE, instead="a complete copy of the folder"
        )
    return found
