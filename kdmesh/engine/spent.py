"""What a run has asked of endpoints: the summary's `endpoints`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.contracts.run_files import ENDPOINTS
from kdmesh.endpoints.journal import Journal
from kdmesh.endpoints.settings import BudgetConfig
from kdmesh.errors import MeshError, nearest
from kdmesh.files import inside
from kdmesh.graph.served import is_served
from kdmesh.hosts.remote import RemoteHost
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kdmesh.backends._base import Work
    from kdmesh.engine.context import RunContext
    from kdmesh.hosts.endpoints import Asked
    from kdmesh.spec import MeshSpec


def add_more(folder: Path, spec: MeshSpec, asked: Sequence[str]) -> None:
    """Raise what a run may spend on endpoints: ``AGENT.requests=N`` or ``AGENT.tokens=N``, each to be added.

    MeshError for what is no such thing.
    """
    for text in asked:
        path, _, count = text.partition("=")
        name, _, what = path.rpartition(".")
        if what not in BudgetConfig.model_fields or not count.isascii() or not count.isdigit() or not int(count):
            raise MeshError(f"{text!r} adds nothing to a budget", where="--more", instead="--more gpt.requests=500")
        agents = [one for one, agent in spec.agents.items() if is_served(agent.model, registry())]
        if name not in agents:
            instead = nearest(name, agents, "agents behind endpoints")
            raise MeshError(f"{name!r} is no agent behind an endpoint", where="--more", instead=instead)
        model: Any = spec.agents[name].model
        if what not in (model.config.get("budget") or {}):
            raise MeshError(f"{name} may be sent any number of {what}", where="--more", instead="leave it out")
        journal = Journal(inside(folder / ENDPOINTS, f"{name}.jsonl"), BudgetConfig(), name)
        journal.more(**{"requests": 0, "tokens": 0, what: int(count)})


def told(run: RunContext, summary: dict[str, Any]) -> Work[None]:
    """Put into a summary what agents behind endpoints were asked, and what whoever reads their figures must know."""
    if not run.checked.served:
        return
    hosts = list(run.plan.hosts)
    parts: list[dict[str, Asked]] = yield from wait(run.backend.submit(host, RemoteHost.endpoints) for host in hosts)
    asked: dict[str, dict[str, Any]] = {name: {**one} for part in parts for name, one in part.items()}
    for one in asked.values():
        summary["notes"] += one.pop("notes")
    summary["endpoints"] = asked
