"""Streams whose writers are given texts of other streams: what of it cannot be run, or would do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import StreamSpec

OWN = ("prompt", "text")
"""What a template may name of the sample itself, beside columns of the data."""


def refuse_reads(plan: Plan, name: str, stream: StreamSpec, where: str) -> None:
    """Raise MeshError for the first such thing of a stream of texts."""
    assert stream.generated_by is not None
    if stream.keep and not any(edge.stream == name for edge in plan.edges):
        what = f"filters say what is learned, and no flow is on {name!r}: whoever reads it reads all"
        raise MeshError(what, where=f"{where}.keep", instead="leave it out, or a flow on this stream")
    if stream.template is not None and plan.spec.agents[stream.generated_by].view.prompt is not None:
        what = f"{stream.generated_by} has a prompt of its own, and this template would stand in its place"
        raise MeshError(what, where=f"{where}.template", instead="an agent of the same weights without `view.prompt`")
    if stream.reads and stream.template is None:
        what = "texts are read where a template names them, and this stream has none"
        raise MeshError(what, where=f"{where}.reads", instead="template: '{{ prompt }} One said: {{ a.text }}'")
    for key, other in (stream.reads or {}).items():
        at = f"{where}.reads.{key}"
        if not key.isidentifier() or key in OWN:
            what = f"{key!r} " + ("is the sample's own" if key in OWN else "is no name in a template")
            raise MeshError(what, where=at, instead="{a: STREAM}")
        _one(plan, name, stream, other, at)


def _one(plan: Plan, name: str, stream: StreamSpec, other: str, at: str) -> None:
    read = plan.spec.streams.get(other)
    if read is None or read.prompts is None or read.generated_by is None:
        what = f"no agent writes texts on {other!r}"
        raise MeshError(what, where=at, instead="a stream with `generated_by` and `prompts`; columns need no `reads`")
    if read.prompts != stream.prompts:
        what = f"{other!r} answers the prompts of {read.prompts!r}, and {name!r} those of {stream.prompts!r}"
        raise MeshError(what, where=at, instead="streams with the same prompts")
    if read.mix is not None:
        what = f"given texts are mixed into {other!r}, so that some of its steps have none that were written"
        raise MeshError(what, where=at, instead="a stream without `mix`")
    if read.refresh == "once":
        return
    assert stream.generated_by is not None
    own, theirs = stream.refresh or "step", read.refresh or "step"
    updates = [plan.train(agent).accumulate for agent in (stream.generated_by, read.generated_by)]
    if own != theirs or (own != "epoch" and updates[0] != updates[1]):
        what = f"{other!r} is written anew each {theirs}, and {name!r} each {own}, of other lengths"
        raise MeshError(what, where=at, instead="one `refresh` (and `accumulate`) for both; or once for what is read")
    draws = [1 if one.sampling is None else one.sampling.samples for one in (stream, read)]
    if draws[0] != draws[1]:
        what = f"{other!r} has {draws[1]} texts of a prompt and {name!r} {draws[0]}, so that their steps differ"
        raise MeshError(what, where=at, instead="as many `samples` in both; or refresh: once for what is read")
