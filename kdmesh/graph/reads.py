"""Streams whose writers are given texts of other streams: what of it cannot be run, or would do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.agreed import refuse_read

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
    if stream.reads and stream.template is None and stream.consensus_of is None:
        what = "texts are read where a template names them, and this stream has none"
        raise MeshError(what, where=f"{where}.reads", instead="template: '{{ prompt }} One said: {{ a.text }}'")
    for key, other in (stream.reads or {}).items():
        at = f"{where}.reads.{key}"
        if not key.isidentifier() or key in OWN:
            what = f"{key!r} " + ("is the sample's own" if key in OWN else "is no name in a template")
            raise MeshError(what, where=at, instead="{a: STREAM}")
        refuse_read(plan, name, stream, other, at)
