"""Edges: one per pair of a flow's ends, with every default resolved that needs no graph."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph import asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from kdmesh.offers import ObjectiveOffer, SignalOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import FlowSpec, GateRef, MeshSpec, ObjectiveRef, Ramp, SignalRef, TapRef

LABELS = "labels"
PLAIN = ("logits", "hidden")  # signals that are read off the model as they are


@dataclass(slots=True)
class Edge:
    """One flow between two nodes. ``refresh`` is None on edges that leave labels or a consensus.

    ``renewed``: how often the consensus that it leaves is made anew for its reader; None: whenever a source publishes.

    ``asked``: what it carries is made after the forwards of both ends, of the source's logits and of what the reader
    asks about its own; see asked.py.

    ``classes``: the columns of the reader's own logits that the source knows, in the source's order; None where both
    stand for the same classes. An agent compares those only; a consensus has the source's logits there.
    """

    id: int
    where: str  # for messages: `flows.3`, or `connect.0.ensemble` which drew it
    source: str
    target: str
    as_: str
    signal: str
    stream: str
    objective: ObjectiveRef | None
    form: str  # of what arrives: labels, logits, probs, hidden
    weight: float | Ramp
    refresh: str | None
    stale: str | None
    sees: str
    detach: bool
    mode: str
    lesson: str | None
    tap: TapRef | None
    needs: tuple[str, ...] = ()  # what the objective is given beside its target: labels, ids ...
    reads: str = "logits"  # what of its own the target compares it with: logits, hidden
    derived: SignalRef | None = None  # the signal, where it is none of `PLAIN`
    mirrored: bool = False  # the reader makes the same signal of its own forward, and compares that
    classes: tuple[int, ...] | None = None
    gate: GateRef | None = None
    renewed: str | None = None
    unaligned: bool = False  # what it carries has rows of no samples: see unaligned.py
    group: str = ""  # the column by which its losses are averaged
    part: str = ""  # of an answer, that its losses are of
    asked: bool = False
    discloses: str = ""  # what of private samples it tells others, as the file says
    gated: int | None = None  # of an edge `as: gate`: the flow whose gate it informs; None: that of its target's update

    @property
    def live(self) -> bool:
        """Whether the source forwards in the same step (else its signal is read from a publication)."""
        return self.refresh == "step" and self.stale is None

    @property
    def output(self) -> str:
        """Which output of its source it carries: "" for logits, else a tap or a derived signal (`x{"k": 8}@mid`).

        What is asked for is made for its reader alone, and named after it, too.
        """
        tap = "" if self.tap is None else self.tap.of
        if self.derived is None:
            return tap if self.signal == "hidden" else ""
        settings = json.dumps(self.derived.config, sort_keys=True) if self.derived.config else ""
        return self.derived.name + settings + (f"@{tap}" if tap else "") + (f" for {self.target}" if self.asked else "")

    @property
    def forwarded(self) -> str:
        """Which output the forward of its source gives for it."""
        return "" if self.asked else self.output

    @property
    def question(self) -> str:
        """The name of what the forward of its reader gives for it, where it is asked for."""
        return f"{self.output}, of {self.source}"

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def resolve(spec: MeshSpec, registry: Registry, origins: Mapping[str, str]) -> list[Edge]:
    """Return one edge per (from, to) pair and tap of every flow, checking that both ends and the objective exist.

    ``origins``: where drawn flows were written.
    """
    edges: list[Edge] = []
    offers: dict[str, ObjectiveOffer] = {}  # by name and settings: a mesh has 100,000 flows and few objectives
    targets = spec.agents.keys() | spec.consensus.keys()
    sources = {LABELS, *targets}
    inherited = _consensus_streams(spec, _apart(spec, registry, origins))
    for number, flow in enumerate(spec.flows):
        if flow.as_ == "weights":
            continue  # see merging.py
        where = f"flows.{number}"
        where = origins.get(where, where)
        if not (sources.issuperset(flow.from_) and targets.issuperset(flow.to)):
            _unknown(flow, where, sources, targets)
        offer: ObjectiveOffer | None = None
        if flow.objective is not None:
            name, config = flow.objective.name, flow.objective.config
            key = f"{name}{config}" if config else name
            if key not in offers:
                registry.check("objectives", name, config, f"{where}.objective")
                offers[key] = registry.find("objectives", name)
            offer = offers[key]
        kind = _signal(flow, registry, where)
        reads = [other.reads for other in (offer, kind) if other] + ([flow.signal.name] if flow.signal else [])
        if isinstance(flow.tap, list) and "hidden" not in reads:
            raise MeshError(
                "a list of layers, on a flow that carries and compares outputs",
                where=f"{where}.tap",
                instead="an objective that reads layers, or leave `tap` out",
            )
        several = len(flow.from_) > 1 or len(flow.to) > 1
        for source in flow.from_:
            for target in flow.to:
                if several and source == target:
                    continue  # a list means all pairs of different nodes
                for tap in flow.taps:
                    edges.append(
                        _edge(len(edges), where, flow, tap, source, target, spec, offer, kind, inherited, registry)
                    )
    return edges


def _signal(flow: FlowSpec, registry: Registry, where: str) -> SignalOffer | None:
    """The offer of a flow's signal, where one is named that has to be made."""
    if flow.signal is None or flow.signal.name in PLAIN:
        return None
    registry.check("signals", flow.signal.name, flow.signal.config, f"{where}.signal")
    kind: SignalOffer = registry.find("signals", flow.signal.name)
    _refuse_offer(kind, where)
    if kind.reads == "hidden" and flow.tap is None:
        raise MeshError(
            f"the signal {kind.name!r} is made of a layer's output", where=f"{where}.tap", instead="tap: layers.0"
        )
    return kind


def _refuse_offer(kind: SignalOffer, where: str) -> None:
    """Refuse an offer that asks for what a signal of its kind is not given."""
    known = asked.KNOWN if kind.aligned else ("labels", "classes")
    odd = [need for need in kind.needs if need not in known] or asked.odd(kind)
    odd += [] if kind.aligned else [n for n in ("lazy", "gradient", "both", "codec") if getattr(kind, n)]
    if odd or (not kind.aligned and kind.form not in PLAIN):
        what = f"asks for {odd[0]}" if odd else f"has the form {kind.form}"
        sort = "is made of samples" if kind.aligned else "is a statistic of a stream"
        instead = f"an offer with needs of: {', '.join(known)}" + ("" if kind.aligned else f"; form of: {PLAIN}")
        raise MeshError(f"the signal {kind.name!r} {sort}, and {what}", where=f"{where}.signal", instead=instead)


def _refuse_readers(
    kind: SignalOffer, flow: FlowSpec, where: str, offer: ObjectiveOffer | None, registry: Registry
) -> None:
    """Refuse who cannot read what a signal says; ``offer``: of the objective, where one compares it."""
    assert flow.signal is not None
    config = registry.check("signals", kind.name, flow.signal.config, f"{where}.signal")
    partial: str = getattr(config, "only_compared", str)()
    why = "it is right on average alone" if kind.estimate else partial
    if why and offer is None:
        raise MeshError(
            f"the signal {kind.name!r} is for objectives alone, and nothing else may read it: {why}",
            where=f"{where}.signal",
            instead="logits, or top_k with `tail: spread`",
        )
    odd = ""
    if offer is not None and kind.estimate and not offer.linear:
        odd = f"{offer.name!r} is not linear in its target, and would learn something else"
    elif offer is not None and partial and not offer.rowwise:
        odd = f"{offer.name!r} asks that a column is the same output in every row"
    if odd:
        fit = [
            one.name for one in registry.offers("objectives")
            if kind.form in one.forms and (one.linear or not kind.estimate) and (one.rowwise or not partial)
        ]  # fmt: skip
        raise MeshError(f"of the signal {kind.name!r} {why}: {odd}", where=f"{where}.objective",
                        instead=", ".join(fit[:6]) + ", or signal: logits")  # fmt: skip


def _apart(spec: MeshSpec, registry: Registry, origins: Mapping[str, str]) -> set[int]:
    """The flows whose sources need not see the same samples, by their numbers."""
    named = {
        number: flow.signal
        for number, flow in enumerate(spec.flows)
        if flow.signal is not None and flow.signal.name not in PLAIN and flow.as_ != "weights"
    }
    where = {number: origins.get(f"flows.{number}", f"flows.{number}") for number in named}
    found = {n: registry.find("signals", signal.name, f"{where[n]}.signal") for n, signal in named.items()}
    return {number for number, offer in found.items() if not offer.aligned}


def _unknown(flow: FlowSpec, where: str, sources: AbstractSet[str], targets: AbstractSet[str]) -> None:
    """Refuse a flow with an end that is no node."""
    for end, names, known in (("from", flow.from_, sources), ("to", flow.to, targets)):
        for name in names:
            if name not in known:
                raise MeshError(
                    f"unknown agent or consensus {name!r}",
                    where=f"{where}.{end}",
                    instead=nearest(name, known, "known nodes", several=True),
                )


def _such(form: str, registry: Registry) -> str:
    """Some objectives that read a form."""
    names = [offer.name for offer in registry.offers("objectives") if form in offer.forms]
    return ", ".join(names[:4]) or "one of a plugin"


def _edge(
    number: int, where: str, flow: FlowSpec, tap: TapRef | None, source: str, target: str, spec: MeshSpec,
    offer: ObjectiveOffer | None, kind: SignalOffer | None, inherited: dict[str, str], registry: Registry,
) -> Edge:  # fmt: skip
    """Build one edge; what only one kind of end allows is refused here."""
    from_agent, from_labels, to_agent = source in spec.agents, source == LABELS, target in spec.agents
    if isinstance(flow.weight, str):
        what = f"`weight: {flow.weight}` is for flows `as: weights`, and this one carries a signal"
        raise MeshError(what, where=f"{where}.weight", instead="a number, or {start, end, epochs}")
    refresh = flow.refresh
    if not to_agent and offer is not None:
        raise MeshError("a flow into a consensus has no objective", where=where, instead="leave `objective` out")
    if not to_agent and from_labels:
        raise MeshError(
            "labels do not flow into a consensus",
            where=f"{where}.from",
            instead="a flow from labels to each agent; a rule that needs labels reads them from its stream",
        )
    if to_agent and flow.as_ == "target" and offer is None:
        raise MeshError(f"the flow {source} -> {target} needs an objective", where=where, instead="objective: kl")
    if not from_agent and (flow.stale is not None or (from_labels and refresh is not None)):
        field = "refresh" if flow.stale is None else "stale"
        raise MeshError(
            f"`{field}` stands on flows that leave an agent, not on {source}",
            where=where,
            instead="leave it out" if from_labels else "put it on the flows into the consensus",
        )
    if to_agent and flow.as_ == "input" and offer is not None:
        what = "an input adds no loss, so `objective` has no effect"
        raise MeshError(what, where=f"{where}.objective", instead="leave it out, or as: target")
    reads = offer.reads if offer is not None else "logits"
    signal = flow.signal.name if flow.signal is not None else reads
    if kind is not None and not from_agent:
        raise MeshError(f"only an agent sends {signal}, not {source}", where=f"{where}.signal", instead="leave it out")
    refresh = asked.settled(kind, flow, where, to_agent, offer)
    form = "labels" if from_labels else kind.form if kind is not None else "hidden" if signal == "hidden" else "logits"
    unaligned = kind is not None and not kind.aligned
    if kind is not None and flow.signal is not None:
        _refuse_readers(kind, flow, where, offer if to_agent and flow.as_ == "target" else None, registry)
    if not to_agent and flow.as_ == "target" and form == "hidden" and not unaligned:
        what = f"a consensus combines outputs, and {source} -> {target} carries {signal}"
        instead = "logits or votes; `as: input` for what only informs the rule"
        raise MeshError(what, where=f"{where}.signal", instead=instead)
    if offer is not None and form not in offer.forms and (from_agent or from_labels):
        raise MeshError(
            f"objective {offer.name!r} does not read {form}, which {source} -> {target} carries",
            where=f"{where}.objective",
            instead=f"an objective that reads {form}, such as {_such(form, registry)}; "
            f"{offer.name!r} reads {', '.join(offer.forms)}",
        )
    return Edge(
        id=number,
        where=where,
        source=source,
        target=target,
        as_=flow.as_,
        signal=signal,
        stream=flow.stream or inherited.get(source, "train"),
        objective=flow.objective,
        form=form,
        weight=flow.weight,
        refresh=refresh if from_agent else None,
        renewed=None if from_agent else refresh,
        stale=flow.stale or ("publish" if from_agent and refresh not in (None, "step") else None),
        sees=flow.sees,
        detach=flow.detach,
        mode=flow.mode,
        lesson=flow.lesson,
        tap=tap,
        needs=() if offer is None or flow.objective is None else offer.needed(flow.objective.config),
        reads=reads,
        derived=None if kind is None else flow.signal,
        gate=flow.gate,
        group="" if flow.denominator is None else flow.denominator.group,
        part=flow.part or "",
        discloses=flow.discloses or "",
        unaligned=unaligned,
        asked=kind is not None and asked.NEED in kind.needs,
        mirrored=kind is not None and kind.both and to_agent and flow.as_ == "target",
    )


def _consensus_streams(spec: MeshSpec, apart: set[int]) -> dict[str, str]:
    """The stream on which each consensus is formed: that of the flows into it (also through another consensus).

    ``apart``: the numbers of flows that may be on any.
    """
    streams: dict[str, str] = {}
    waiting: dict[str, list[tuple[str, int]]] = {}  # consensus -> those it feeds, each with its flow
    for number, flow in enumerate(spec.flows):
        for target in flow.to:
            if target not in spec.consensus or flow.as_ == "weights" or number in apart:
                continue
            if flow.stream is None and all(source in spec.consensus for source in flow.from_):
                for source in flow.from_:
                    waiting.setdefault(source, []).append((target, number))
            else:
                _formed(streams, target, flow.stream or "train", number)
    ready = [name for name in waiting if name in streams]
    for name in ready:  # grows while it is read
        for target, number in waiting[name]:
            if target in waiting and target not in streams:
                ready.append(target)
            _formed(streams, target, streams[name], number)
    return streams


def _formed(streams: dict[str, str], target: str, stream: str, number: int) -> None:
    """Note the stream of a consensus, which has one."""
    if streams.setdefault(target, stream) != stream:
        raise MeshError(
            f"consensus {target!r} has flows on stream {stream!r} here and on {streams[target]!r} elsewhere",
            where=f"flows.{number}.stream",
            instead="use one stream for all flows into a consensus, or two consensus nodes",
        )


def flow_names(edges: Iterable[Edge]) -> dict[int, str]:
    """A name of each flow, by its id: ``t -> s``, as `plan` and messages have it; where several are between the same
    two, with the objective, and the stream, and its number where these are the same too."""
    names: dict[int, str] = {}
    groups: dict[str, list[Edge]] = {}
    for edge in edges:
        groups.setdefault(str(edge), []).append(edge)
    for name, group in groups.items():
        full = [f"{name}: {edge.objective.name} on {edge.stream}" if edge.objective else name for edge in group]
        for at, edge in enumerate(group):
            again = full[:at].count(full[at])
            names[edge.id] = name if len(group) == 1 else full[at] + (f" ({again + 1})" if again else "")
    return names
