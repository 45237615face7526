"""Rounds of consensus nodes, and of texts that a rule chose, kept in the store where the file asks for a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import as_argument, wait
from kdmesh.engine import texts
from kdmesh.engine.folder import manifest
from kdmesh.engine.publisher import sources
from kdmesh.hosts.remote import RemoteHost
from kdmesh.hosts.rollouts import ONCE
from kdmesh.store import EntryKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.backends._base import Work
    from kdmesh.engine.context import RunContext, StageRecord
    from kdmesh.hosts.step import Wrote

MADE_OF = ("data", "teachers", "inputs", "code", "plugins", "given", "writers")
BUILDS = ("kdmesh", "torch")


def remember(run: RunContext, record: StageRecord, names: Iterable[str]) -> Work[None]:
    """Have a round of some nodes kept, each by the host that measures it; the stage's record counts them."""
    for name in names:
        host = run.plan.evaluator(name)
        stream = run.publisher.base(run.plan.consensus[name].stream)
        latest = [run.publisher.latest.get((source, stream)) for source in sources(run.plan, name)]
        sent = [as_argument(handle) for handle in latest if handle is not None]
        if not host or not sent:
            continue
        known = record.histories.setdefault(name, {"rounds": 0, "entries": {}})
        known["rounds"] += 1
        about = (name, which(run), known["rounds"])
        (found,) = yield from wait([run.backend.submit(host, RemoteHost.remember, *about, *sent)])
        known["entries"] |= found


def remember_texts(run: RunContext, record: StageRecord, wrote: Iterable[Wrote]) -> Work[None]:
    """The same of streams that a rule has just made: what was written together is a round."""
    for one in wrote:
        if run.plan.spec.streams[one.stream].history is None:
            continue
        known = record.histories.setdefault(one.stream, {"rounds": 0, "entries": {}})
        known["rounds"] = 1 if one.phase == ONCE else known["rounds"] + 1  # what is written once, each stage tells of
        about = (one.stream, which(run), known["rounds"], texts.records(run.plan, one))
        (found,) = yield from wait([run.submit(one.agent, RemoteHost.remember_texts, *about)])
        known["entries"] |= found


def which(run: RunContext) -> dict[str, Any]:
    """What makes a run this one: all that its bits depend on, but for where its agents live. The same once more, or
    resumed, is the same.
    """
    if run.which:
        return run.which
    known = manifest(run.plan, run.checked)
    mesh = {name: value for name, value in known["mesh"].items() if name not in ("placement", "description")}
    made = {part: known[part] for part in MADE_OF} | {"mesh": mesh, "seed": known["seed"]}
    made["packages"] = {name: known["packages"][name] for name in BUILDS}
    digest = EntryKey({"run": made}, {}).digest
    run.which = {"mesh": run.plan.spec.name, "seed": known["seed"], "sha256": digest}
    return run.which


def told(run: RunContext) -> dict[str, Any]:
    """The histories of a run by consensus: how many rounds there were, and the entries by who spoke."""
    return {name: known for record in run.records.values() for name, known in record.histories.items()}
