"""Agents that look their answers up have one to all samples that they teach on, and are measured where they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.graph.looked_up import looked_up
from kdmesh.graph.private import MEASURED
from kdmesh.hosts.modules import build
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan


def covered(plan: Plan, found: Checked) -> None:
    """Refuse streams with a sample that an agent has no answer to; mark splits on which it is not measured for it."""
    for name in looked_up(plan, registry()):
        module: Any = build(plan, plan.owner[name], found.reading, registry(), {})
        taught = {edge.stream: edge.where for edge in plan.edges if edge.source == name}
        for stream in dict.fromkeys([*taught, *(split for split in MEASURED if split in found.streams)]):
            rows = found.streams[stream].rows_for(name)
            if not len(rows):
                continue
            x: Any = found.reading.samples(name, rows)
            lacking = module.lacking(x, measuring=stream not in taught)
            count = int(lacking.sum())
            if count < len(rows):
                _answers(module, x[~lacking][:1], name)
            if not count:
                continue
            first = int(rows[lacking][0])
            notes = "".join(f"; {note}" for note in getattr(module, "notes", ()))
            if stream in taught:
                raise MeshError(
                    f"{name} has no answer to {count} of the {len(rows)} samples of {stream!r}, the first is sample "
                    f"{first}: it looks them up by their content{notes}",
                    where=f"agents.{name}.model",
                    instead="the data that were answered, prepared as they were then; or a flow on a stream of these",
                )
            how = f"; {module.remedy}" if getattr(module, "remedy", "") else ""
            found.mark(
                f"{name} is not measured on {stream}: it has no answer to {count} of its {len(rows)} samples{how}"
            )
        for note in getattr(module, "notes", ()):
            found.mark(f"{name}: {note}")


def _answers(module: Any, x: Tensor, name: str) -> None:
    """Refuse values of another kind than the task asks for."""
    try:
        module(x)
    except MeshError as error:
        error.where = f"agents.{name}.{error.where}"
        raise
