"""Filters of the texts that agents write: which of them a mesh cannot have, and which agents they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.spec import SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.graph.plan import Plan
    from kdmesh.offers import FilterOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import FilterRef, MeshSpec, StreamSpec

OUT, PAIRS = "leave it out", "pairs"


def keys(refs: list[FilterRef] | None) -> list[str]:
    """The filters of a stream by the names under which they are counted: a second `length` is `length 2`."""
    names = [ref.name for ref in refs or ()]
    return [f"{name} {names[:at].count(name) + 1}" if name in names[:at] else name for at, name in enumerate(names)]


def informants(spec: MeshSpec) -> Iterator[tuple[str, str, str]]:
    """The agents that filters read: each with the agent that writes the texts, and the place of the filter."""
    for name, stream in spec.streams.items():
        for field, ref in stream.filters.items():
            if ref.of and stream.generated_by is not None and ref.of != stream.generated_by:
                yield ref.of, stream.generated_by, f"streams.{name}.{field}"


def refuse_filters(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for a filter that is not offered, has wrong settings, or cannot say anything here."""
    for name, stream in plan.spec.streams.items():
        for field, ref in stream.filters.items():
            where = plan.at(f"streams.{name}.{field}")
            if stream.prompts is None:
                what = "filters are of texts that an agent writes, and this stream has no prompts to answer"
                raise MeshError(what, where=plan.at(f"streams.{name}.{field.partition('.')[0]}"), instead=OUT)
            if field == PAIRS:
                _several(plan, name, stream, "pairs", where)
            if not ref.is_import:
                offer: FilterOffer = registry.find("filters", ref.name, where)
                registry.check("filters", ref.name, ref.settings, where)
                if ref.of:
                    _of(plan, stream, ref, offer, f"{where}.{ref.name}.of")
                if offer.several:
                    _several(plan, name, stream, ref.name, where)


def _of(plan: Plan, stream: StreamSpec, ref: FilterRef, offer: FilterOffer, where: str) -> None:
    """The agent whose loss is read stands still, or is the writer: its loss must not depend on who is first."""
    if "loss" not in offer.needs:
        raise MeshError(f"filter {ref.name!r} reads no agent's loss, so `of` has no effect", where=where, instead=OUT)
    if ref.of not in plan.spec.agents:
        instead = nearest(ref.of, plan.spec.agents, "agents")
        raise MeshError(f"unknown agent {ref.of!r}", where=where, instead=instead)
    assert stream.generated_by is not None
    owner = plan.owner[ref.of]
    if owner in plan.trainable and owner != plan.owner[stream.generated_by]:
        what = f"{ref.of} trains, and what it finds likely would depend on when it is asked"
        raise MeshError(what, where=where, instead=f"a frozen agent, or {stream.generated_by}, which writes the texts")


def _several(plan: Plan, name: str, stream: StreamSpec, which: str, where: str) -> None:
    """A filter that compares the texts of a prompt sees all of them at once."""
    draws = (stream.sampling or SamplingSpec()).samples
    if draws == 1:
        what = f"filter {which!r} compares the texts of a prompt, and one is written to each"
        raise MeshError(what, where=where, instead=f"streams.{name}.sampling.samples: 4")
    if stream.refresh in ("once", "round", "epoch"):
        return
    for edge in plan.edges:
        size = plan.train(edge.target).batch_size if edge.stream == name and edge.target in plan.owner else draws
        if size % draws:
            what = f"filter {which!r} compares the {draws} texts of a prompt, and batches of {size} divide them"
            raise MeshError(what, where=where, instead=f"batch_size: {max(1, size // draws) * draws}")
