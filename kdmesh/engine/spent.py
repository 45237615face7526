"""What a run has asked of endpoints: the summary's `endpoints`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.contracts.run_files import ENDPOINTS, TRIALS
from kdmesh.endpoints.journal import Journal
from kdmesh.endpoints.settings import BudgetConfig
from kdmesh.engine.resume import begun, finished, interrupted
from kdmesh.errors import MeshError, nearest
from kdmesh.files import inside
from kdmesh.graph.served import is_served
from kdmesh.hosts.remote import RemoteHost
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kdmesh.backends._base import Work
    from kdmesh.engine.context import RunContext
    from kdmesh.hosts.endpoints import Asked
    from kdmesh.spec import MeshSpec


def looked(folder: Path, served: Mapping[str, dict[str, Any]]) -> None:
    """Note in a run's folder what looks at its endpoints have found and cost: no part of it looks again.

    ``served``: by agent, see :meth:`kdmesh.endpoints.served.Served.record`.
    """
    for name, found in served.items():
        Journal(inside(folder / ENDPOINTS, f"{name}.jsonl"), BudgetConfig(), name).before(found)


def add_more(folder: Path, spec: MeshSpec, asked: Sequence[str]) -> None:
    """Raise what a run may spend on endpoints: ``AGENT.requests=N`` or ``AGENT.tokens=N``, each to be added.

    MeshError for what is no such thing; then nothing is added.
    """
    for one in [_more(spec, text) for text in asked]:
        _add(folder, *one)


def add_more_to_trials(root: Path, asked: Sequence[str]) -> None:
    """The same for each trial of a comparison or a sweep that is begun and not whole, and that has the agent.

    MeshError also where there is none.
    """
    folders = [path.parent for path in sorted((root / TRIALS).glob(f"**/{ENDPOINTS}"))]
    specs = {folder: interrupted(folder) for folder in folders if (how := begun(folder)) and not finished(folder, how)}
    if not specs:
        raise MeshError("no trial waits for more", where="--more", file=str(root), instead=f"kdmesh resume {root}")
    found: list[tuple[Path, str, str, int]] = []
    for text in asked:
        fits, wrong = [], None
        for folder, spec in specs.items():
            try:
                fits.append((folder, *_more(spec, text)))
            except MeshError as error:
                wrong = wrong or error
        if wrong is not None and not fits:
            raise wrong
        found += fits
    for one in found:
        _add(*one)


def _more(spec: MeshSpec, text: str) -> tuple[str, str, int]:
    """The agent, what may be spent on it, and how much more."""
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
    return name, what, int(count)


def _add(folder: Path, name: str, what: str, count: int) -> None:
    journal = Journal(inside(folder / ENDPOINTS, f"{name}.jsonl"), BudgetConfig(), name)
    journal.more(**{"requests": 0, "tokens": 0, what: count})


def of_trials(root: Path) -> str:
    """What all trials of a comparison or a sweep have asked of endpoints, in words."""
    sums: dict[str, list[int]] = {}
    for path in sorted((root / TRIALS).glob(f"**/{ENDPOINTS}/*.jsonl")):
        journal, had = Journal(path, BudgetConfig(), path.stem), sums.setdefault(path.stem, [0, 0])
        had[0] += journal.requests
        had[1] += journal.tokens
    told = ", ".join(f"{name} {requests:,} requests, {tokens:,} tokens" for name, (requests, tokens) in sums.items())
    return f"all trials together have asked {told}"


def flag_of(where: str) -> str:
    """What `--more` raises, of the budget that stands at a path of a mesh."""
    name, _, what = where.removeprefix("agents.").partition(".model.api.budget.")
    return f"{name}.{what}"


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
