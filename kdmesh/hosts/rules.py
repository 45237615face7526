"""What a host does for the rules of consensus nodes: the column that one reads, signals on a whole stream, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch

from kdmesh.errors import FAULTS
from kdmesh.graph import reach
from kdmesh.graph.parties import variant
from kdmesh.hosts import guard, side_inputs
from kdmesh.hosts.consensus import Moment, fingerprint
from kdmesh.hosts.loader import ShardView
from kdmesh.hosts.publications import Key
from kdmesh.offers import AGE, NOW
from kdmesh.signals import Signal
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.consensus import Consensus
    from kdmesh.hosts.loader import BatchSource
    from kdmesh.hosts.state import HostState
    from kdmesh.signals.lazy import Lazy


def facts(
    host: HostState,
    node: ConsensusNode,
    shard: BatchSource,
    y: Tensor | None,
    known: Mapping[str, Tensor],
    at: Tensor | None = None,
    now: Moment | None = None,
) -> dict[str, Any]:
    """What a rule is given beside signals, by keyword, about the samples of a view at positions ``at``; None: all.

    ``y``: their labels; ``known``: errors on validation, by member; ``now``: how far its reader's training is.
    """
    found: dict[str, Any] = {"labels": y} if node.needs_labels else {}
    if node.column:
        side_inputs.columns(host, node)
        found["column"] = side_inputs.numbers_at(host, node.column, shard, at)
    if "ids" in node.needs or node.releases:
        found["ids"] = side_inputs.ids(shard, at)
    if node.needs_errors:
        found["errors"] = errors(node, known)
    return found | moments(node, now) | ages(host, node)


def ages(host: HostState, node: ConsensusNode) -> dict[str, Any]:
    """For how many rounds the party of each member has been away, as far as a rule asks."""
    if AGE not in node.needs:
        return {}
    return {AGE: tuple(host.gone.get(host.plan.home_of(edge.source), 0) for edge in node.members)}


def set_away(host: HostState, parties: Mapping[str, int], forget: bool) -> None:
    """Note who does not take part, and for how many rounds in a row; ``forget`` what they have published.

    What is published once, before the first round, is not made again, and so hidden until they are back.
    """
    plan = host.plan
    gone = {name for name in (*plan.spec.agents, *plan.consensus) if plan.home_of(name) in parties} if forget else set()
    lasting = {name for name in gone if _lasts(plan, name)}
    host.publications.forget(gone - lasting)
    host.publications.hide(lasting)
    if parties != host.gone:
        host.publications.outdate()
    host.gone = dict(parties)


def _lasts(plan: Plan, name: str) -> bool:
    """Whether what a source publishes is all made before its readers' stage begins."""
    if name in plan.consensus:
        return all(_lasts(plan, edge.source) for edge in plan.consensus[name].inputs)
    return plan.stage_of(name) is None or all(
        edge.refresh == "once" for edge in plan.edges if edge.source == name and not edge.live
    )


def moments(node: ConsensusNode, now: Moment | None) -> dict[str, Any]:
    """How far the training of a rule's reader is, as far as it asks."""
    if not node.timely:
        return {}
    assert now is not None
    return {name: getattr(now, name) for name in NOW if name in node.needs}


def last_asked(host: HostState, node: ConsensusNode) -> Moment | None:
    """When a rule that depends on the time last taught, the first of its readers here; at its start before that."""
    if not node.timely:
        return None
    here = [name for name in reach.readers(node.name, host.plan.consensus) if name in host.agents]
    start = Moment(round=1) if "round" in node.needs else Moment()
    return host.consensus[node.name].asked.get(None if node.owned else next(iter(here), None), start)


def errors(node: ConsensusNode, known: Mapping[str, Tensor]) -> Tensor | None:
    """The members' errors on validation ``[M, T]``, infinite where none are ``known``; None for a rule without."""
    if not node.needs_errors or not known:
        return None
    absent = torch.full_like(next(iter(known.values())), torch.inf)
    return torch.stack([known.get(edge.source, absent) for edge in node.members])


def published(host: HostState, node: ConsensusNode) -> dict[str, Tensor]:
    """The errors that the members of a consensus last published, by member, for :func:`facts`."""
    if not node.needs_errors:
        return {}
    stream = host.streams[node.stream].base or node.stream
    found = {edge.source: host.publications.get(Key(edge.source, stream, edge.output)) for edge in node.members}
    return {name: one.errors for name, one in found.items() if one is not None and one.errors is not None}


def attribute_error(host: HostState, name: str, error: BaseException, when: str) -> NoReturn:
    """Raise, with whose rule it is, what a consensus raised."""
    rule = host.plan.consensus[name].rule.name
    host.registry.attribute_error("consensus", rule, error, f"to combine {when}", f"consensus.{name}")


def report(host: HostState, name: str) -> dict[str, float]:
    """What the rule of a consensus says of itself."""
    try:
        return guard.report(host.consensus[name].rule)
    except FAULTS as error:
        rule = host.plan.consensus[name].rule.name
        host.registry.attribute_error("consensus", rule, error, "to report", f"consensus.{name}")


def statistic(host: HostState, edge: Edge, device: torch.device) -> Signal | None:
    """What an agent last published that has rows of no samples, whole; None before."""
    return whole(host, Key(edge.source, host.streams[edge.stream].base or edge.stream, edge.output), edge.form, device)


def whole(host: HostState, key: Key, form: str, device: torch.device) -> Signal | None:
    """A publication that has rows of no samples; None where there is none yet."""
    one = host.publications.get(key)
    if one is None:
        return None
    values = one.values.to(device)
    return Signal(values, form, None if one.present is None else one.present.to(device, values.dtype))


def stored(
    host: HostState, name: str, reader: str, shard: ShardView | None, now: Moment | None = None
) -> Signal | None:
    """A consensus whose inputs are all stored, formed once on the whole stream; None where no source has published.

    ``shard``: the view whose rows they have, None for rows of no samples; ``now``: how far the reader's training is,
    for rules that ask.
    """
    consensus = host.consensus[name]
    stream = consensus.node.stream if shard is None else shard.stream.base or shard.stream.name

    def fetch(edge: Edge) -> Signal | None:
        if edge.source in host.consensus and host.plan.away(edge.source, host.name):
            key = Key(edge.source, stream, variant(edge.source, reader, host.plan.consensus))
            return whole(host, key, edge.form, host.device if shard is None else shard.device)
        if edge.source in host.consensus:
            return stored(host, edge.source, reader, shard, now)
        if edge.source in host.dropped:
            return None
        if shard is None:
            return statistic(host, edge, host.agents[reader].device if reader in host.agents else host.device)
        publication = host.publications.get(Key(edge.source, stream, edge.output))
        return None if publication is None else Signal(publication.values.to(shard.device), edge.form)

    def make() -> Signal | None:
        try:
            node = consensus.node
            given = {} if shard is None else facts(host, node, shard, shard.y, published(host, node), now=now)
            given |= moments(node, now) | ages(host, node) if shard is None else {}
            consensus.note(reader, now)
            if not consensus.draws:
                return consensus.combine(reader, fetch, given)
            seed = _seed(host, consensus, reader, fetch, stream)
            with guard.seeded(seed):
                return consensus.combine(reader, fetch, given, seed)
        except FAULTS as error:
            attribute_error(host, name, error, f"the stream {stream!r}" if shard else "statistics of streams")

    def mark() -> str:
        gathered = consensus.gather(reader, fetch)
        informs = [None if signal is None else signal.value for signal in map(fetch, consensus.node.given)]
        present = None if gathered is None else gathered[1]
        old = [torch.tensor(one) for one in ages(host, consensus.node).values()]
        return fingerprint(*_values(gathered), present, *informs, *old)

    return consensus.table(reader, host.publications.version, make, mark if consensus.keeps else None)


def _values(gathered: tuple[list[Signal | None], Tensor | None] | None) -> list[Tensor | Lazy | None]:
    return [] if gathered is None else [None if signal is None else signal.value for signal in gathered[0]]


def _seed(
    host: HostState, consensus: Consensus, reader: str, fetch: Callable[[Edge], Signal | None], stream: str
) -> int:
    """Of what a rule draws as it combines what is stored: by what that is, so that every host and every run that
    forms the same table, whenever it does, draws the same."""
    values = _values(consensus.gather(reader, fetch))
    return mix(host.seed, "combine", consensus.node.name, stream, consensus.variant(reader) or "", fingerprint(*values))
