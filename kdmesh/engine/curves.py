"""Curves of a stage: the mean loss of each flow, and the mean reward of what agents wrote for each stream, between two
points, which depend on step numbers alone.

Hosts tell each step's losses and texts; they are added here in the order of the steps, so that the same file and seed
give the same curves under any placement and whatever a run was interrupted by.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.events import Trained
from kdmesh.graph.edges import flow_names
from kdmesh.hosts.rollouts import ONCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kdmesh.graph.edges import Edge
    from kdmesh.hosts.step import Losses, Wrote

POINTS = 200  # of a stage at most, beside the ends of as many epochs
APART = 16  # steps between two at least, where no epoch ends: telling one costs a small model a tenth of a step


class Curve:
    """Adds up the losses and rewards of one stage, and tells their means where a point is reached."""

    def __init__(
        self,
        stage: str,
        edges: Iterable[Edge],
        total: int,
        known: dict[str, Any] | None = None,
        every: int | None = None,
    ) -> None:
        """``total``: the stage's steps; ``known``: the :meth:`state` to go on from; ``every``: steps between points."""
        self.stage, self.total, self.every = stage, total, every or max(APART, -(-total // POINTS))
        self.edges = {edge.id: edge for edge in edges}
        self.names = flow_names(self.edges.values())
        known = known or {}
        self.flows: dict[int, list[float]] = {  # JSON has no number for a sum that is not finite: None
            flow: [math.nan if loss is None else loss, count] for flow, loss, count in known.get("flows", ())
        }
        self.steps: dict[str, int] = known.get("steps", {})  # that had a loss, by agent
        self.rewards: dict[str, list[float]] = known.get("rewards", {})  # by stream: their sum, and how many

    def state(self) -> dict[str, Any]:
        """What was added since the last point, as JSON holds it."""
        flows = [[flow, *sums] for flow, sums in self.flows.items()]
        return {"flows": flows, "steps": self.steps, "rewards": self.rewards}

    def add(
        self, losses: list[Losses], wrote: list[Wrote], first: int, last: int, done: int, offset: int, epoch: int
    ) -> Iterator[Trained]:
        """Losses and texts of steps ``first .. last - 1``, from all hosts; gives what is told where a point is reached.

        ``done``: the stage's steps before ``first``; ``offset``: those of the phase; ``epoch``: its length in steps.
        """
        rows = sorted(losses, key=lambda row: row.step)  # of several hosts; those of one are in order
        texts = sorted((one for one in wrote if one.phase != ONCE), key=lambda one: one.step)
        begin = read = 0
        for step in range(first, last):
            now, within = done + step - first + 1, offset + step - first + 1
            whole = within % epoch == 0
            if now % self.every == 0 or (whole and epoch * POINTS >= self.total):
                end = bisect_right(rows, step, begin, key=lambda row: row.step)
                self._keep(rows[begin:end])
                begin = end
                end = bisect_right(texts, step, read, key=lambda one: one.step)
                self._reward(texts[read:end])
                read = end
                if self.flows or self.rewards:
                    yield self._point(now, within // epoch if whole else None)
        self._keep(rows[begin:])
        self._reward(texts[read:])

    def _reward(self, wrote: list[Wrote]) -> None:
        """Add rewards up, in the order in which texts were written."""
        for one in wrote:
            known = [line.reward for line in one.lines if line.reward is not None]
            if known:
                total, count = self.rewards.get(one.stream, (0.0, 0))
                for reward in known:
                    total += reward
                self.rewards[one.stream] = [total, count + len(known)]

    def _keep(self, rows: list[Losses]) -> None:
        """Add losses up, those of each flow in the order of the steps."""
        kept: dict[int, list[tuple[int, float]]] = {}
        for row in rows:
            for flow, loss in zip(row.flows, row.values, strict=True):
                if loss is not None:
                    kept.setdefault(flow, []).append((row.step, loss))
        steps: dict[str, set[int]] = {}
        for flow, told in kept.items():
            total, count = self.flows.get(flow, (0.0, 0))
            for _, loss in told:  # not `sum`, which later versions of Python round less
                total += loss
            self.flows[flow] = [total, count + len(told)]
            steps.setdefault(self.edges[flow].target, set()).update(step for step, _ in told)
        for agent, own in steps.items():
            self.steps[agent] = self.steps.get(agent, 0) + len(own)

    def rest(self, done: int) -> Iterator[Trained]:
        """At the stage's end: what no point has told."""
        if self.flows or self.rewards:
            yield self._point(done, None)

    def _point(self, step: int, epoch: int | None) -> Trained:
        flows: dict[str, dict[str, float]] = {}
        totals: dict[str, float] = {}
        for flow in sorted(self.flows):  # not as hosts happened to tell them
            loss, count = self.flows[flow]
            agent = self.edges[flow].target
            flows.setdefault(agent, {})[self.names[flow]] = loss / count
            totals[agent] = totals.get(agent, 0.0) + loss
        losses = {agent: total / self.steps[agent] for agent, total in totals.items()}
        rewards = {stream: total / count for stream, (total, count) in sorted(self.rewards.items())}
        point = Trained(self.stage, step, epoch, losses, flows, rewards=rewards)
        self.flows, self.steps, self.rewards = {}, {}, {}
        return point
