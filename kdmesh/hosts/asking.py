"""What a reader asks of its own logits, at its host, and what makes the answer of these, at the source's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from kdmesh.errors import FAULTS, MeshError
from kdmesh.hosts import guard, making
from kdmesh.signals.lazy import Lazy, dense, narrowed
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.graph.edges import Edge
    from kdmesh.hosts.state import HostState

Columns = int | Tensor | None
"""Which of the reader's columns a flow compares: the first so many, these, or all."""


def questions(host: HostState, agent: str, columns: Callable[[HostState, Edge], Columns]) -> dict[str, making.Maker]:
    """What a forward of an agent gives beside its logits for those whom it asks, by name."""
    edges = [edge for edge in host.plan.edges if edge.asked and edge.target == agent]
    return {edge.question: making.Maker(_question(host, edge, columns(host, edge))) for edge in edges}


def _question(host: HostState, edge: Edge, columns: Columns) -> Callable[..., Any]:
    make, offer = _made(host, edge), _offer(host, edge)
    ours, seed = offer.factory.startswith(guard.OURS), mix(host.seed, "question", edge.target, edge.output)

    def question(value: Tensor | Lazy, x: Any, layers: Any) -> Tensor | Lazy:
        """Its own ids, say, of the columns that both ends have, in the source's order."""
        value = value.detach() if offer.lazy and not isinstance(columns, Tensor) else dense(value).detach()
        if columns is not None:
            value = value[..., columns] if isinstance(columns, Tensor) else narrowed(value, columns)  # type: ignore[index]
        try:
            if ours:
                return making.ask(make, value)
            given = value.clone() if isinstance(value, Tensor) else value
            with guard.seeded(seed, strict=True):
                asked = making.ask(make, given)
            guard.refuse_changed(given, value, host.config.strict)
        except MeshError as error:
            error.where = error.where or f"{edge.where}.signal"
            raise
        except FAULTS as error:
            doing = f"to ask of what {edge.target} says, on the flow {edge}"
            host.registry.attribute_error("signals", offer.name, error, doing, edge.where)
        return asked

    return question


def answerer(host: HostState, edge: Edge, columns: Columns) -> Callable[[Tensor | Lazy, Any], Tensor | Lazy]:
    """What makes the answer of the source's logits ``[N, C]``, detached, and what its reader asked."""
    made, offer, strict = _made(host, edge), _offer(host, edge), host.config.strict
    make, seen = host.timed("signals", offer.name, made), False
    ours, seed = offer.factory.startswith(guard.OURS), mix(host.seed, "answer", edge.source, edge.output)

    def answer(value: Tensor | Lazy, asked: Any) -> Tensor | Lazy:
        nonlocal seen
        value = value.detach() if offer.lazy else dense(value).detach()
        value = narrowed(value, columns) if isinstance(columns, int) else value
        try:
            if ours:
                result: Tensor | Lazy = make(value, asked=asked)
                return result
            given = value.clone() if isinstance(value, Tensor) else value
            with guard.seeded(seed, strict=True):
                result = make(given, asked=asked).detach()
            guard.refuse_signal(result, value, value.shape[1:] if offer.form != "hidden" else None, offer.form)
            guard.refuse_changed(given, value, strict)
            if not seen:
                guard.refuse_codec(result)
                seen = True
        except FAULTS as error:
            when = "" if host.step is None else f" at step {host.step}"
            host.registry.attribute_error("signals", offer.name, error, f"on the flow {edge}{when}", edge.where)
        return result

    return answer


def _offer(host: HostState, edge: Edge) -> Any:
    assert edge.derived is not None
    return host.registry.find("signals", edge.derived.name)


def _made(host: HostState, edge: Edge) -> Any:
    """The signal of a flow, which asks and answers; its settings were checked."""
    assert edge.derived is not None
    offer = _offer(host, edge)
    try:
        with guard.alone():
            return offer.make(edge.derived.config)
    except FAULTS as error:
        host.registry.attribute_error("signals", offer.name, error, f"to be made for {edge}", edge.where)
