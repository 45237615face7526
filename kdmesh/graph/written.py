"""Streams that an agent's host writes while a mesh trains: what they can be, and what can be read on them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.sources import written_before
from kdmesh.offers import OF_TEXTS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import StreamSpec

PERIOD = re.compile(r"step|epoch|[1-9]\d* steps")


def refuse_written(plan: Plan, writers: Mapping[str, Any]) -> None:
    """Raise MeshError for a writer of no stream, and for what has no meaning on a stream that has one."""
    generated = {name for name, one in plan.spec.streams.items() if one.generated_by is not None and not one.prompts}
    for name, writer in writers.items():
        where = f"streams.{name}"
        if name not in generated:
            instead = nearest(name, generated, "streams with `generated_by` and no `prompts`")
            raise MeshError("there is a writer for a stream that no agent generates", where=where, instead=instead)
        if not callable(getattr(writer, "write", None)):
            instead = "an object with write(step, agent), which gives x, y and ids"
            raise MeshError(
                f"its writer is a {type(writer).__name__}, which writes nothing", where=where, instead=instead
            )
        _stream(plan.spec.streams[name], where)
    refuse_taken(plan, writers)
    refuse_reader(plan, writers)


def refuse_taken(plan: Plan, written: Collection[str]) -> None:
    """Raise MeshError for a stream that would be taken from one of those that are ``written``."""
    for name, stream in plan.spec.streams.items():
        for field, others in (("of", [stream.of]), ("rest_of", stream.rest_of or [])):
            for other in others:
                if other in written:
                    raise MeshError(
                        f"stream {other!r} is written batch by batch and cannot be taken from",
                        where=f"streams.{name}.{field}",
                        instead="a split, or a stream of one",
                    )


def refuse_reader(plan: Plan, written: Collection[str]) -> None:
    """Raise MeshError for what cannot be read on a stream that is ``written``, or not in several stages."""
    for edge in plan.edges:
        if edge.stream in written:
            _read(plan, edge)
    for node in plan.consensus.values():
        if node.stream in written and node.column and plan.spec.streams[node.stream].prompts is None:
            raise MeshError(
                f"stream {node.stream!r} is written and has no columns",
                where=f"consensus.{node.name}.rule.{node.rule.name}.column",
                instead="a rule that reads none",
            )
    for name in written:
        own = plan.spec.streams[name]
        if own.prompts is not None and own.refresh == "once":
            continue  # each stage has the same texts
        stages = [s.name for s in plan.stages if any(_in(plan, name, phase.streams) for phase in s.phases.values())]
        if len(stages) > 1:
            raise MeshError(
                f"it is read in several stages, {' and '.join(stages)}, which would each need a stream of their own",
                where=f"streams.{name}",
                instead="a stream for each",
            )


def _in(plan: Plan, name: str, streams: Collection[str]) -> bool:
    """Whether a stream is among those, or one of them is written from it."""
    return any(name in (one, *written_before(plan.spec, one)) for one in streams)


def _stream(stream: StreamSpec, where: str) -> None:
    if stream.refresh is not None and not PERIOD.fullmatch(stream.refresh):
        raise MeshError(
            f"{stream.refresh!r} is not a period of a written stream",
            where=f"{where}.refresh",
            instead="step, epoch, or `10 steps`",
        )
    refuse_without_meaning(stream, where, "leave it out")


def refuse_without_meaning(stream: StreamSpec, where: str, instead: str, *more: str) -> None:
    """Raise MeshError for a field of a stream that means nothing where it is written; ``more``: and for these."""
    for field in ("shards", "replay", "private", "rest_of", *more):
        if getattr(stream, field):
            raise MeshError(f"`{field}` has no meaning on a written stream", where=f"{where}.{field}", instead=instead)


def _read(plan: Plan, edge: Edge) -> None:
    """What is said on a written stream is said of its present batch alone."""
    if edge.source in plan.spec.agents and not edge.live and edge.stale != "snapshot":
        raise MeshError(
            f"stream {edge.stream!r} is written while the mesh trains, so that {edge.source} cannot publish on it",
            where=f"{edge.where}.refresh",
            instead="refresh: step, or stale: snapshot",
        )
    batched = (*OF_TEXTS, "pairs", *(["labels"] if "pairs" in edge.needs else []))  # are those of its batch
    if whole := [need for need in edge.needs if need not in batched]:
        raise MeshError(
            f"the objective of {edge} needs {', '.join(whole)} of a whole stream, and {edge.stream!r} is written",
            where=f"{edge.where}.objective",
            instead="an objective without these, or another stream",
        )
