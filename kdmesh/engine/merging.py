"""Weights that flow: which leave when, through which consensus nodes, and where they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.backends._base import as_argument
from kdmesh.graph.arriving import Moment
from kdmesh.graph.merging import SAMPLES
from kdmesh.hosts.remote import RemoteHost

if TYPE_CHECKING:
    from collections.abc import Collection

    from kdmesh.backends._base import Backend, Handle
    from kdmesh.checks.checked import Checked
    from kdmesh.graph.merging import WeightFlow
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.hosts.packing import Packed

    State = Handle[dict[str, Packed]]


class Merger:
    """Passes weights between hosts: all that leave at one time leave before any arrive."""

    def __init__(self, plan: Plan, checked: Checked, backend: Backend) -> None:
        self.plan, self.checked, self.backend = plan, checked, backend
        self.host_of = plan.host_of

    def periods(self, stage: Stage) -> list[tuple[str, str]]:
        """The source and `refresh` of each flow into a stage's agents, also through consensus nodes, each once."""
        merging = self.plan.merging
        leaves = [leaf for flow in merging.into(stage.agents) for leaf in merging.behind(flow)]
        return list(dict.fromkeys((leaf.source, str(leaf.refresh)) for leaf in leaves))

    def once(self, stage: Stage) -> list[tuple[str, str]]:
        """What leaves before a stage begins."""
        return [(source, refresh) for source, refresh in self.periods(stage) if refresh == "once"]

    def due(
        self,
        stage: Stage,
        leaving: Collection[tuple[str, str]],
        at: int,
        to: str | None = None,
        away: Collection[str] = (),
    ) -> list[Handle[None]]:
        """At a time: what flows into a stage's agents.

        ``leaving``: the sources, with the `refresh` whose time it is; ``to``: to this node only. ``at``: steps of the
        stage that are done, by which what rules draw is seeded; ``away``: agents that take part in nothing now.
        """
        flows = {
            flow.id
            for flow in self.plan.merging.flows
            if (flow.source, flow.refresh) in leaving and to in (None, flow.target)
        }
        return _Moment(self, flows, at).arrive([one for one in stage.agents if one not in away]) if flows else []

    def share(self, flow: WeightFlow) -> float:
        """The weight of a flow into an agent, before division by the sum."""
        if flow.weight == SAMPLES:
            return float(self.checked.size(flow.stream, flow.source))
        return float(flow.weight)


class _Moment:
    """One time at which some flows carry weights. ``leaving``: those of agents that do, by their ids."""

    def __init__(self, merger: Merger, leaving: set[int], at: int) -> None:
        self.merger, self.leaving, self.at = merger, leaving, at
        self.now = Moment(merger.plan.merging, merger.plan.owner, leaving)
        self.plan, self.merging, self.backend = merger.plan, merger.plan.merging, merger.backend
        self.states: dict[str, State] = {}  # of agents, by the weights' owner
        self.pooled: dict[tuple[str, str | None], State] = {}  # by consensus, and its reader under leave-one-out

    def arrive(self, agents: list[str]) -> list[Handle[None]]:
        """Submit what has to be done for these agents, in the order that lets hosts wait for each other."""
        arriving: dict[str, list[tuple[WeightFlow, str]]] = {}  # by owner: flows, each with the agent that reads it
        for flow in self.merging.into(agents):
            if self.now.brings(flow, flow.target):
                arriving.setdefault(self.plan.owner[flow.target], []).append((flow, flow.target))
        flows = [one for part in arriving.values() for one in part]
        for flow, _ in flows:
            self._leave(flow)
        for flow, reader in flows:
            self._pool(flow, reader)
        taken = []
        for owner, part in arriving.items():
            states = [as_argument(self._state(flow, reader)) for flow, reader in part]
            shares = [self.merger.share(flow) for flow, _ in part]
            taken.append(
                self.backend.submit(self.merger.host_of[owner], RemoteHost.take_weights, owner, shares, *states)
            )
        return taken

    def _leave(self, flow: WeightFlow) -> None:
        """Have the agents behind a flow hand over their weights."""
        for leaf in self.merging.behind(flow):
            owner = self.plan.owner[leaf.source]
            if leaf.id in self.leaving and owner not in self.states:
                home = self.merger.host_of[leaf.source]
                self.states[owner] = self.backend.submit(home, RemoteHost.export_state, leaf.source)

    def _pool(self, flow: WeightFlow, reader: str) -> None:
        """Have the consensus that a flow leaves combined, after those that it combines itself."""
        pool = self.merging.pools.get(flow.source)
        key = flow.source, self.now.variant(flow.source, reader)
        if pool is None or key in self.pooled:
            return
        present = self.now.combined(flow.source, reader)
        for inner, here in zip(pool.inputs, present, strict=True):
            if here:
                self._pool(inner, reader)
        states = [self._state(inner, reader) for inner, here in zip(pool.inputs, present, strict=True) if here]
        home = self.plan.pool_home(pool.name)
        self.pooled[key] = self.backend.submit(
            home, RemoteHost.combine_weights, pool.name, present, self.at, *map(as_argument, states)
        )

    def _state(self, flow: WeightFlow, reader: str) -> State:
        """What a flow brings to a reader."""
        if flow.source in self.merging.pools:
            return self.pooled[flow.source, self.now.variant(flow.source, reader)]
        return self.states[self.plan.owner[flow.source]]
