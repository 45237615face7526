"""Updates: sum the losses that reach a set of weights, go backward once, step.

Weights between which gradients pass (`detach: false`, a trained consensus) are updated together from one backward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from torch import Tensor

from kdmesh.errors import FAULTS, MeshError
from kdmesh.graph.edges import Edge
from kdmesh.graph.mixing import about_samples
from kdmesh.graph.private_training import noised
from kdmesh.graph.steps import Op
from kdmesh.hosts import blame, guard
from kdmesh.hosts.drawn import Drawn
from kdmesh.hosts.gates import GatedTerm, gated
from kdmesh.hosts.grouped import GroupedTerm
from kdmesh.hosts.mixed import MixedTerm
from kdmesh.hosts.noised import Noised
from kdmesh.hosts.parts import PartTerm
from kdmesh.hosts.step import Losses
from kdmesh.hosts.terms import SpreadTerm, Term, shared_targets
from kdmesh.signals.wide import wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.state import HostState
    from kdmesh.hosts.step import StepContext
    from kdmesh.hosts.weights import Weights


def joint(plan: Plan, edges: list[Edge], here: list[str]) -> dict[str, tuple[str, ...]]:
    """Which weights update from one backward over ``edges``, by each name of ``here``; in that order within a group."""
    union = nx.utils.UnionFind(here)
    for joined in reached(plan, edges, here).values():
        if len(joined) > 1:
            union.union(*joined)
    groups: dict[str, list[str]] = {}
    for name in here:
        groups.setdefault(union[name], []).append(name)
    return {name: tuple(group) for group in groups.values() for name in group}


def reached(plan: Plan, edges: list[Edge], here: list[str]) -> dict[int, set[str]]:
    """By flow, which weights of ``here`` the gradient of its loss reaches."""
    found: dict[int, set[str]] = {}
    through: dict[str, list[str]] = {}
    for edge in plan.edges:
        source = plan.owner.get(edge.source, edge.source)
        if not edge.detach and edge.target in plan.consensus:
            through.setdefault(edge.target, []).append(source)
    for edge in edges:
        target = plan.owner.get(edge.target, edge.target)
        source = plan.owner.get(edge.source, edge.source)
        joined = {target}
        if edge.source in plan.consensus:
            if plan.consensus[edge.source].trained:
                joined.add(source)
            if not edge.detach:
                joined.update(through.get(edge.source, ()))
        elif not edge.detach:
            joined.add(source)
        found[edge.id] = joined & set(here)
    return found


def refuse_joint(host: HostState) -> None:
    """MeshError where weights that cannot be are updated together with others, in any phase; asked as a host is built.

    These are weights that are spread, and those whose losses are scaled for fp16: each has a scale of its own.
    """
    alone = {
        name: f"the weights of {name} are not all in one process" if weights.spread else f"{name} computes in fp16"
        for name, weights in host.weights.items()
        if weights.spread or weights.settings.precision == "fp16"
    }
    for stage in host.plan.stages if alone else ():
        for phase in stage.phases.values():
            moved = {op.node for op in phase.ops if op.kind == "u"}
            here = [name for name in host.weights if name in moved]
            for name, group in joint(host.plan, phase.edges, here).items():
                if name in alone and len(group) > 1:
                    raise MeshError(
                        f"gradients pass between {' and '.join(group)}, which are therefore updated together, and "
                        f"{alone[name]}",
                        where=f"agents.{name}",
                        instead="detach: true on the flows between them, and no trained consensus"
                        + ("" if host.weights[name].spread else "; or precision: bf16"),
                    )


class Update:
    """Compiles the `u` ops of one phase on one host."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs, self.host = inputs, inputs.host
        self._softens = shared_targets(inputs.plan.edges, self.host.objectives)
        self.losses: dict[str, list[float]] = {}  # weights -> [sum of losses, steps] since the last report
        self._by_flow: list[tuple[int, tuple[int, ...], list[Any]]] = []  # losses by flow since the last report
        here = [name for name in self.host.weights if name in inputs.ends]
        self._groups = joint(self.host.plan, inputs.plan.edges, here)

    def compile(self, op: Op) -> Callable[[StepContext], None] | None:
        """The call of one update; within a joint group the last op does it for all."""
        if op.node not in self.host.weights or op.node not in self.inputs.ends:
            return None
        weights = self.host.weights[op.node]
        if weights.ema is not None:
            leader = self.host.weights[self.host.plan.owner[weights.ema.of]]
            return lambda context: weights.follow(leader) if leader.updates != weights.updates else None
        group = self._groups[op.node]
        if (private := self._private(op.node)) is not None:
            return private
        order = [other.node for other in self.inputs.plan.ops if other.kind == "u" and other.node in group]
        if order[-1] != op.node:
            return None
        return self._step([self.host.weights[name] for name in group])

    def together(self, name: str) -> tuple[str, ...]:
        """The weights that an update of ``name`` moves."""
        return self._groups.get(name, (name,))

    def _terms(self, group: list[Weights]) -> list[Term]:
        names = {weights.name for weights in group}
        edges = [
            edge
            for edge in self.inputs.plan.edges
            if edge.as_ == "target" and self.host.plan.owner.get(edge.target) in names
        ]
        return [self._term(edge) for edge in edges]

    def _term(self, edge: Edge) -> Term:
        own, tap = Op("f", edge.target, edge.stream), edge.tap.to if edge.reads == "hidden" and edge.tap else ""
        tap = edge.output if edge.mirrored else tap

        def value(context: StepContext) -> Tensor:
            logits, taps = context.values[own]
            return taps[tap] if tap else logits

        objective = self.host.objectives[edge.id]
        consensus = self.host.consensus.get(edge.source)
        if consensus is not None and consensus.node.space in ("loss", "gradient"):
            return SpreadTerm(edge, objective, value, self.inputs, consensus)
        if edge.part:
            return PartTerm(edge, objective, value, self.inputs, self._softens.get(edge.id))
        if edge.target in self.host.plan.mixed and not edge.unaligned:
            of_samples = about_samples(self.host.plan, edge)
            if of_samples or "labels" in edge.needs:
                return MixedTerm(edge, objective, value, self.inputs, self._softens.get(edge.id), of_samples=of_samples)
        kind = GroupedTerm if edge.group else Term if edge.gate is None else GatedTerm
        return kind(edge, objective, value, self.inputs, self._softens.get(edge.id))

    def _step(self, group: list[Weights]) -> Callable[[StepContext], None]:
        """One gradient step over the sum of the group's terms, in declared order; see :func:`gated` for ``left``."""
        terms = self._terms(group)
        settings = group[0].settings
        accumulate, threads, name = settings.accumulate, settings.threads, group[0].name
        backward = group[0].backward
        check_now = all(weights.settings.device == "cpu" for weights in group)
        tally = self.losses.setdefault(name, [0.0, 0])
        flows, record = tuple(term.edge.id for term in terms), self._by_flow.append
        first, last = self.inputs.first, min(self.inputs.ends[weights.name] for weights in group)
        shares = [self._share(term, accumulate, last) for term in terms] if accumulate > 1 else None

        def loss_and_gradient(context: StepContext, left: list[Weights] = group) -> None:
            self.host.threads(threads)
            total: Tensor | None = None
            parts: list[tuple[Term, Tensor]] = []
            values: list[Any] = []
            for index, term in enumerate(terms):
                try:
                    loss = term(context)
                except FAULTS as error:
                    term.attribute_error(error, context.step)
                if loss is None:
                    values.append(None)
                    continue
                values.append(loss.item() if check_now else loss.detach())  # read later: reading makes a GPU wait
                if shares is not None:
                    loss = loss * shares[index](context.step)
                parts.append((term, loss))
                total = loss if total is None else total + loss
            for weights in left:
                weights.zero()
            record((context.step, flows, values))
            if total is not None:
                # elsewhere than on a CPU reading it makes the device wait
                if check_now or context.step % guard.LOOK == 0 or context.step == last - 1:
                    value = total.item()
                    if value - value != 0:  # NaN or infinite
                        blame.refuse_broken(parts, context.step)
                    tally[0] += value
                    tally[1] += 1
                if total.requires_grad:
                    try:
                        backward(total)
                    except RuntimeError as error:
                        blame.backward_failed([term for term, _ in parts], error, context.step)
            if (context.step - first) % accumulate == accumulate - 1 or context.step == last - 1:
                for weights in group:
                    if weights.pending:  # by this batch, or an earlier one of this accumulation
                        weights.step()

        def skipped(context: StepContext) -> None:
            record((context.step, flows, [None] * len(flows)))
            if (context.step - first) % accumulate == accumulate - 1 or context.step == last - 1:
                for weights in group:
                    if weights.pending:  # by an earlier batch of this accumulation
                        weights.step()

        reach = reached(self.host.plan, [term.edge for term in terms], [weights.name for weights in group])
        return gated(self.inputs, group, terms, reach, loss_and_gradient, skipped)

    def _private(self, name: str) -> Callable[[StepContext], None] | None:
        """The same of weights that are trained privately, in this phase of private samples; None of others."""
        host, streams = self.host, noised(self.host.plan, name) if name in self.host.agents else frozenset()
        terms = self._terms([host.weights[name]]) if streams else []
        hidden = [term for term in terms if term.edge.stream in streams]
        view = self.inputs.shard(name, hidden[0].edge.stream) if hidden else None
        if not isinstance(view, Drawn):
            return None
        weights, part = host.weights[name], Noised(self.inputs, name, view)
        plain = [term for term in terms if term.edge.stream not in streams]
        flows, record = tuple(term.edge.id for term in terms), self._by_flow.append

        def step(context: StepContext) -> None:
            host.threads(weights.settings.threads)
            weights.zero()
            values: dict[int, Any] = {}
            total: Tensor | None = None
            for term in plain:
                try:
                    loss = term(context)
                except FAULTS as error:
                    term.attribute_error(error, context.step)
                if loss is not None:
                    values[term.edge.id] = loss.detach()
                    total = loss if total is None else total + loss
            record((context.step, flows, [values.get(flow) for flow in flows]))
            if total is not None and total.requires_grad:
                weights.backward(total)
            weights.add(part.gradient(context, hidden, weights.trained()))
            weights.step()

        return step

    def _share(self, term: Term, accumulate: int, last: int) -> Callable[[int], float]:
        """A micro-batch's share of its accumulation window, so that denominators cover the whole window."""
        shard, first = self.inputs.shard(term.edge.target, term.edge.stream), self.inputs.first
        size, drop = self.inputs.settings.batch_size, self.inputs.settings.drop_last
        count = shard.sizes if "pairs" in term.edge.needs else shard.count  # its loss is a mean over pairs

        by_text = getattr(term.objective, "averages", "") == "texts"
        texts = getattr(shard, "texts", None) if by_text else None  # of those that an agent writes

        def samples(step: int) -> int:
            at = self.inputs.position(step, shard)
            return int((texts or count)(at, size, drop))

        def share(step: int) -> float:
            start = first + (step - first) // accumulate * accumulate
            return samples(step) / sum(samples(s) for s in range(start, min(start + accumulate, last)))

        return share

    def told(self) -> list[Losses]:
        """Each step's losses by flow since the last report, as numbers."""
        rows, kept = (
            list(self._by_flow),
            [value for row in self._by_flow for value in row[2] if isinstance(value, Tensor)],
        )
        self._by_flow.clear()
        if not kept:
            return [Losses(step, flows, tuple(values)) for step, flows, values in rows]
        device = kept[0].device
        numbers = iter(torch.stack([value.to(device, wide(device)) for value in kept]).tolist())
        return [
            Losses(step, flows, tuple(next(numbers) if isinstance(value, Tensor) else value for value in values))
            for step, flows, values in rows
        ]

    def report(self) -> dict[str, float]:
        """Mean loss of every group's first weights since the last report."""
        out = {name: total / count for name, (total, count) in self.losses.items() if count}
        for tally in self.losses.values():
            tally[:] = [0.0, 0]
        return out
