"""Run a phase: cut it at every boundary, submit chunks of steps, publish and evaluate where a period ends."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import as_argument, wait
from kdmesh.checks.budget import epoch_steps, phase_steps
from kdmesh.contracts.events import Note, Progress
from kdmesh.engine import texts
from kdmesh.engine.context import At
from kdmesh.engine.curves import Curve
from kdmesh.errors import RunFailed
from kdmesh.graph import histories, renewal
from kdmesh.graph.fragments import cut, hosts_of_ops, whole
from kdmesh.hosts.metrics import UNDEFINED
from kdmesh.hosts.remote import RemoteHost
from kdmesh.tasks import metric

if TYPE_CHECKING:
    from kdmesh.backends._base import Handle, Work
    from kdmesh.engine.home import StageHome
    from kdmesh.graph.program import Train
    from kdmesh.graph.steps import Phase
    from kdmesh.hosts.packing import Bundle
    from kdmesh.hosts.step import Report, Wrote

WINDOW = 16  # steps submitted together where hosts exchange live
AHEAD = 2  # windows in flight: bounds memory and lets a teacher run ahead
SECONDS = 0.5  # length of a chunk on one host, so that progress is shown and a signal is obeyed


class Teaching:
    """Runs the phases of one stage. Generators yield handles and are sent their values, so stages run side by side."""

    def __init__(self, home: StageHome, total: int, known: dict[str, Any] | None = None) -> None:
        """``known``: the :meth:`state` to go on from."""
        self.home, self.run, self.stage, self.total = home, home.run, home.stage, total
        self.plan, self.backend = self.run.plan, self.run.backend
        known = known or {}
        self.cursor: dict[str, int] = known.get("cursor", {})
        self.reached = dict(self.cursor)  # the same where a period ends, as agents are measured there
        self.visited = {(key, name): steps for key, name, steps in known.get("visited", ())}  # by phase and weights
        self.budget: dict[str, int] | None = known.get("budget")  # of the phase under way, by weights
        self.done: int = known.get("done", 0)
        self.stopped = set(known.get("stopped", ()))  # weights that early stopping ended
        self.stale_for: dict[str, int] = known.get("stale_for", {})
        self.losses: dict[str, float] = known.get("losses", {})
        edges = {edge.id: edge for phase in self.stage.phases.values() for edge in phase.edges if edge.objective}
        self.curve = Curve(self.stage.name, edges.values(), total, known.get("curve"), self.run.every)
        self._flows = self.run.merger.periods(self.stage)  # of weights
        self._epoch = 1  # steps of one, of the phase under way
        self._pace: dict[str, float] = {}

    def state(self) -> dict[str, Any]:
        """Where this stands, as JSON holds it."""
        return {
            "cursor": self.cursor,
            "visited": [[key, name, steps] for (key, name), steps in self.visited.items()],
            "budget": self.budget,
            "done": self.done,
            "stopped": sorted(self.stopped),
            "stale_for": self.stale_for,
            "losses": self.losses,
            "curve": self.curve.state(),
        }

    def phase(self, line: Train) -> Work[None]:
        """Train one line of the program."""
        phase = self.stage.phases[line.key]
        if self.budget is None:
            planned = phase_steps(self.plan, self.run.checked, self.stage, line)
            idle = self.stopped | self.run.away
            self.budget = {owner: steps for owner, steps in planned.items() if owner not in idle}
        budget = self.budget
        total = max(budget.values(), default=0)
        epoch = self._epoch = max(epoch_steps(self.plan, self.run.checked, self.stage, line).values())
        first, periods = self.cursor.get(line.key, 0), self._periods(epoch)
        offset, active = self.home.position.enter(0), None
        while offset < total:
            now = self._active(budget, offset)
            if not now:
                break
            until = min(budget[owner] for owner in now if owner in budget)
            if now != active:
                ends = {name: first + budget.get(name, total) for name in now}
                shifts = {name: self.visited.get((line.key, name), 0) - first for name in budget}
                yield from self._begin(phase, line.key, ends, first, shifts)
                active = now
            end = min([until, *((offset // period + 1) * period for period in periods)])
            yield from self._steps(phase, first, first + offset, first + end)
            offset = end
            self.reached[line.key] = first + offset
            yield from self._boundary(offset, epoch)
            self.home.position.at(offset)
            yield from self.home.checkpoint_if_due()
        if self.stage.program.body == [line] and any(map(self._watched, self.stage.agents)):
            yield from self.home.checkpoint()  # of the last weights: a longer run goes on from them
        yield from self._close()
        self.home.position.leave()
        self.cursor[line.key] = self.reached[line.key] = first + total
        for name, steps in budget.items():
            self.visited[line.key, name] = self.visited.get((line.key, name), 0) + steps
        self.budget = None

    def _active(self, budget: dict[str, int], offset: int) -> frozenset[str]:
        """The weights that train now: budget left and not stopped, their followers, and trained consensus nodes."""
        own = {owner for owner, steps in budget.items() if steps > offset and owner not in self.stopped}
        if not own:
            return frozenset()
        agents = self.plan.spec.agents
        leaders = {
            name: self.plan.owner[ema.of]
            for name in self.stage.weights
            if name in agents and (ema := agents[name].ema) is not None
        }
        follow: set[str] = set()
        while more := {name for name, leader in leaders.items() if leader in own | follow} - follow:
            follow |= more
        return frozenset(own | follow | {name for name in self.stage.weights if name in self.plan.consensus})

    def _begin(self, phase: Phase, key: str, ends: dict[str, int], first: int, shifts: dict[str, int]) -> Work[None]:
        hosts = {host for names in hosts_of_ops(self.plan, phase).values() for host in names}
        begin = (self.stage.name, key, ends, first, shifts, self.home.turn)
        yield from wait(self.backend.submit(host, RemoteHost.begin, *begin) for host in sorted(hosts))

    def _periods(self, epoch: int) -> list[int]:
        """Periods in steps at which chunks must end: epochs, if something happens then, and those of `N steps`."""
        subscriptions = self.run.publisher.subscriptions(self.stage)
        periods = [self._period(one.source, one.refresh) for one in subscriptions if one.refresh.endswith(" steps")]
        periods += [self._period(source, refresh) for source, refresh in self._flows if refresh.endswith(" steps")]
        renewed = renewal.periods(self.plan, self.stage)
        periods += [self._period(agent, period) for period, agents in _steps_of(renewed) for agent in agents]
        refreshes = {subscription.refresh for subscription in subscriptions} | {refresh for _, refresh in self._flows}
        if "epoch" in refreshes | renewed.keys() or any(map(self._evaluates, self.stage.agents)):
            periods.append(epoch)
        return periods

    def _steps(self, phase: Phase, zero: int, first: int, last: int) -> Work[None]:
        """Submit steps ``first .. last - 1``: on one host in chunks, between hosts in a bounded window.

        ``zero``: the phase's first step, from which its position counts.
        """
        hosts = list(dict.fromkeys(host for names in hosts_of_ops(self.plan, phase).values() for host in names))
        if len(hosts) == 1:
            yield from self._alone(phase, hosts[0], zero, first, last)
        else:
            yield from self._between(phase, zero, first, last)

    def _alone(self, phase: Phase, host: str, zero: int, first: int, last: int) -> Work[None]:
        while first < last:
            pace = self._pace.get(phase.name)
            steps = self.run.every or (4 if pace is None else max(1, int(SECONDS / max(pace, 1e-5))))
            end = min(last, first + steps)
            start = time.perf_counter()
            fragment = whole(host, self.stage.name, first, end)[0]
            _, report = self.backend.submit_pair(host, RemoteHost.run, fragment)
            yield from self._note(phase, (yield from wait([report])), zero, first, end)
            self._pace[phase.name] = (time.perf_counter() - start) / (end - first)
            first = end
            if first < last:  # at the last step the period's end comes first
                self.home.position.at(first - zero)
                yield from self.home.checkpoint_if_due()

    def _between(self, phase: Phase, zero: int, first: int, last: int) -> Work[None]:
        flight: deque[tuple[list[Handle[Report]], int, int]] = deque()
        while first < last:
            end = min(last, first + (self.run.every or WINDOW))
            exports: list[Handle[Bundle]] = []
            reports: list[Handle[Report]] = []
            for fragment in cut(self.plan, self.stage.name, phase, first, end):
                needs = [as_argument(exports[number]) for number in fragment.needs]
                bundle, report = self.backend.submit_pair(fragment.host, RemoteHost.run, fragment, *needs)
                exports.append(bundle)
                reports.append(report)
            flight.append((reports, first, end))
            first = end
            stop = first < last and self.home.due
            while len(flight) > (0 if stop else AHEAD):
                reports, start, until = flight.popleft()
                yield from self._note(phase, (yield from wait(reports)), zero, start, until)
            if stop:
                self.home.position.at(first - zero)
                yield from self.home.checkpoint_if_due()
        for reports, start, until in flight:
            yield from self._note(phase, (yield from wait(reports)), zero, start, until)

    def _note(self, phase: Phase, reports: list[Report], zero: int, first: int, end: int) -> Work[None]:
        for report in reports:
            self.losses.update(report.losses)
            self.run.tell_odd(report.odd)
        losses = [one for report in reports for one in report.flows]
        wrote = [one for report in reports for one in report.wrote]
        yield from self._written(wrote)
        for point in self.curve.add(losses, wrote, first, end, self.done, first - zero, self._epoch):
            self.run.events.emit(replace(point, round=self.home.round))
        self.done += end - first
        self._count_saved(phase, end - first)
        self.run.events.emit(Progress(self.stage.name, self.done, self.total, dict(self.losses)))

    def _written(self, wrote: list[Wrote]) -> Work[None]:
        """Count and keep the texts that were written."""
        for one in wrote:
            texts.count(self.home.record.texts, one)
        self.run.texts.add(wrote)
        for event in texts.told(self.stage.name, wrote):
            self.run.events.emit(event)
        texts.refuse_nothing(self.plan, self.home.record.texts, wrote)
        yield from self.home.remember_texts(wrote)

    def _count_saved(self, phase: Phase, steps: int) -> None:
        """Count the forwards that publications spared: one per step and stored source, however many read it."""
        active = {edge.source for edge in phase.edges} | {edge.stream for edge in phase.edges}
        for subscription in self.run.publisher.subscriptions(self.stage):
            if subscription.stale != "snapshot" and (subscription.source in active or subscription.consensus & active):
                self.home.record.saved[subscription.source] = self.home.record.saved.get(subscription.source, 0) + steps

    # -- what happens where a period ends --------------------------------------------------------------------------

    def _boundary(self, offset: int, epoch: int) -> Work[None]:
        publisher = self.run.publisher
        if offset % epoch == 0:
            yield from self.home.publish(publisher.due(self.stage, "epoch", at=self.home.moment(str(self.done))))
            yield from self.home.remember(histories.after(self.plan, "epoch", self.stage.agents))
            yield from self.home.publish(publisher.renew(renewal.due(self.plan, self.stage, "epoch")))
        yield from self.home.merge(
            [
                (source, refresh)
                for source, refresh in self._flows
                if (refresh == "epoch" and offset % epoch == 0)
                or (refresh.endswith(" steps") and offset % self._period(source, refresh) == 0)
            ],
            self.done,
        )
        if offset % epoch == 0:
            yield from self._evaluate(offset // epoch)
        spoke: dict[str, None] = {}
        for subscription in publisher.subscriptions(self.stage):
            source, refresh = subscription.source, subscription.refresh
            if refresh.endswith(" steps") and offset % self._period(source, refresh) == 0:
                yield from self.home.publish(publisher.due(self.stage, refresh, [source]))
                spoke |= dict.fromkeys(histories.after(self.plan, refresh, [source]))
        yield from self.home.remember([*spoke])
        for period, agents in _steps_of(renewal.periods(self.plan, self.stage)):
            over = {agent for agent in agents if offset % self._period(agent, period) == 0}
            found = {name: over & {*who} for name, who in renewal.due(self.plan, self.stage, period).items()}
            yield from self.home.publish(publisher.renew({name: sorted(who) for name, who in found.items()}))

    def _period(self, source: str, refresh: str) -> int:
        """Micro-batches of so many updates of an agent's weights."""
        return int(refresh.split()[0]) * self.plan.train(source).accumulate

    def _evaluates(self, agent: str) -> bool:
        return self.plan.train(agent).evaluates

    def _evaluate(self, epoch: int) -> Work[None]:
        """Measure on validation those whose turn it is; stop the ones that no longer improve."""
        agents = [
            name
            for name in self.stage.agents
            if self._evaluates(name)
            and epoch % (self.plan.train(name).evaluate_every or 1) == 0
            and self.plan.owner[name] not in self.stopped | self.run.away
        ]
        metrics = yield from self.home.validate(agents)
        for agent, values in zip(agents, metrics, strict=True):
            self.run.evaluated(agent, "validation", values, At(self.stage.name, self.done, epoch, self.home.round))
            train = self.plan.train(agent)
            if train.watches is None or not self._watched(agent):
                continue
            watched = train.watches.metric
            assert watched is not None  # settled when the mesh was drawn
            if watched not in values:
                field = "keep_best" if train.early_stopping is None else "early_stopping"
                raise RunFailed(
                    f"`{field}` of {agent} watches {watched}, which is not defined on validation: "
                    f"{values.get(UNDEFINED, {}).get(watched) or 'no figure'}",
                    where=f"agents.{agent}.train.{field}.metric",
                    instead="another metric, or other validation samples",
                )
            value = metric(watched).worth(values[watched])
            (better,) = yield from wait([self.run.submit(agent, RemoteHost.keep_best, agent, value)])
            self.stale_for[agent] = 0 if better else self.stale_for.get(agent, 0) + 1
            if train.early_stopping is not None and self.stale_for[agent] >= train.early_stopping.patience:
                self.stopped.add(agent)
                # it serves the others with its best weights
                yield from wait([self.run.submit(agent, RemoteHost.restore_best, agent)])
                self.run.events.emit(Note(f"{agent} stops early after epoch {epoch}: validation no longer improves"))

    def _close(self) -> Work[None]:
        """Agents of which the best weights are kept leave a phase with them."""
        yield from wait(
            self.run.submit(agent, RemoteHost.restore_best, agent)
            for agent in self.stage.agents
            if self._watched(agent)
        )

    def _watched(self, agent: str) -> bool:
        return self.plan.train(agent).watches is not None and agent == self.plan.owner[agent]


def _steps_of(renewed: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    """The periods of `N steps` among some, with who declares each."""
    return [(period, agents) for period, agents in renewed.items() if period.endswith(" steps")]
