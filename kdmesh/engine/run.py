"""A run: stages in the plan's order, those without a path between them side by side, then the measurements."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kdmesh.engine.budget import planned_updates, stage_steps
from kdmesh.engine.rounds import Rounds
from kdmesh.engine.summary import roles, summarise
from kdmesh.engine.supply import Supply
from kdmesh.engine.teach import Teaching
from kdmesh.graph.program import Publish, Repeat, Train

if TYPE_CHECKING:
    from collections.abc import Generator

    from kdmesh.backends._base import Backend
    from kdmesh.engine.check import Checked
    from kdmesh.engine.checkpoint import Checkpoints
    from kdmesh.engine.events import Events
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.graph.steps import Lesson

Line = Train | Publish | Repeat


class Run:
    """One seed of one mesh on one backend whose hosts are open. :meth:`execute` returns the summary."""

    def __init__(
        self, plan: Plan, checked: Checked, backend: Backend, events: Events, checkpoints: Checkpoints | None = None
    ) -> None:
        self.plan, self.checked, self.backend, self.events = plan, checked, backend, events
        self.checkpoints = checkpoints
        self.supply = Supply(plan, backend)
        self.roles = roles(plan)
        self.rounds: list[dict[str, Any]] = []
        self.saved: dict[str, int] = {}
        self.host_of = plan.host_of

    def execute(self) -> dict[str, Any]:
        """Train every stage and measure everyone."""
        start = time.perf_counter()
        steps = {stage.name: stage_steps(self.plan, self.checked, stage) for stage in self.plan.stages}
        self.events.emit(
            "run_started",
            name=self.plan.spec.name,
            seed=self.plan.spec.seed,
            backend=self.backend.name,
            hosts=self.plan.hosts,
            stages=[{"stage": s.name, "agents": s.agents, "steps": steps[s.name]} for s in self.plan.stages],
        )
        self._schedule(steps)
        summary = self._finish(self._measure())
        summary["wall_s"] = round(time.perf_counter() - start, 3)
        return summary

    def call(self, agent: str, method: str, *args: Any) -> Any:
        """Call a method of an agent's host."""
        return self.backend.call(self.host_of[agent], method, *args)

    # -- scheduling ------------------------------------------------------------------------------------------------

    def _schedule(self, steps: dict[str, int]) -> None:
        """Advance every stage whose handles are there; start a stage when those it waits for are done."""
        left = {stage.name: stage for stage in self.plan.stages}
        done: set[str] = set()
        active: dict[str, tuple[Generator[list[Any], Any, None], list[Any], list[Any]]] = {}

        def advance(name: str, values: list[Any] | None) -> None:
            generator = active[name][0]
            try:
                handles: list[Any] = []
                while not handles:  # nothing to wait for: go on at once
                    handles = generator.send(values)
                    values = []
                active[name] = (generator, handles, list(handles))
            except StopIteration:
                del active[name]
                done.add(name)

        while left or active:
            for name, stage in list(left.items()):
                if stage.waits <= done:
                    del left[name]
                    active[name] = (self._stage(stage, steps[name]), [], [])
                    advance(name, None)
            if not active:
                continue
            owners = [name for name, (_, _, waiting) in active.items() for _ in waiting]
            pending = [handle for _, _, waiting in active.values() for handle in waiting]
            index = self.backend.wait_any(pending)
            _, handles, waiting = active[owners[index]]
            waiting.remove(pending[index])
            if not waiting:
                advance(owners[index], self.backend.get(handles))

    def _stage(self, stage: Stage, total: int) -> Generator[list[Any], Any, None]:
        """One stage: its finished sources publish, then its program runs."""
        start = time.perf_counter()
        self.events.emit("stage_started", stage=stage.name, agents=stage.agents, steps=total)
        updates = planned_updates(self.plan, self.checked, stage)
        hosts = dict.fromkeys(self.host_of[agent] for agent in stage.agents)
        yield [self.backend.call(host, "start", stage.name, updates) for host in hosts]
        yield self.supply.once(stage)
        teaching = Teaching(self, stage, total)
        yield from self._checkpoint(stage)
        reason = yield from self._lines(stage, teaching, stage.program.body, None)
        yield [self.backend.call(host, "end", stage.name) for host in hosts]
        yield from self._checkpoint(stage)
        if "validation" in self.checked.streams:
            found = yield [self.call(agent, "evaluate", agent, "validation") for agent in stage.agents]
            for agent, values in zip(stage.agents, found, strict=True):
                self.evaluated(stage.name, agent, "validation", None, values)
        self.events.emit(
            "stage_finished", stage=stage.name, reason=reason or "spent", seconds=round(time.perf_counter() - start, 3)
        )

    def _lines(
        self, stage: Stage, teaching: Teaching, lines: list[Line], rounds: Rounds | None
    ) -> Generator[list[Any], Any, str]:
        reason = ""
        for line in lines:
            if isinstance(line, Train):
                yield from teaching.lesson(line)
            elif isinstance(line, Publish):
                yield self.supply.due(stage, "round", line.agents, line.to)
                if rounds is not None:
                    yield from rounds.published(line.agents, line.to)
            else:
                reason = yield from self._repeat(stage, teaching, line)
        if teaching.stopped >= {name for name in stage.weights if name in self.plan.spec.agents}:
            reason = "stopped early"
        return reason

    def _repeat(self, stage: Stage, teaching: Teaching, line: Repeat) -> Generator[list[Any], Any, str]:
        """Rounds, until they are spent or the sources agree."""
        rounds = Rounds(self, stage, line.times, line.until)
        for number in range(1, line.times + 1):
            yield from self._lines(stage, teaching, line.body, rounds)
            verdict = yield from rounds.after(number)
            yield from self._checkpoint(stage)
            if verdict:
                return verdict
        return "spent"

    def _checkpoint(self, stage: Stage) -> Generator[list[Any], Any, None]:
        if self.checkpoints is not None:
            hosts = list(dict.fromkeys(self.host_of[agent] for agent in stage.agents))
            folder = self.checkpoints.next(stage.name)
            files = yield [self.backend.call(host, "save", str(folder)) for host in hosts]
            self.checkpoints.complete(stage.name, folder, [name for part in files for name in part])

    # -- measuring -------------------------------------------------------------------------------------------------

    def evaluated(self, stage: str, agent: str, stream: str, epoch: int | None, metrics: dict[str, float]) -> None:
        """Tell of one evaluation."""
        if metrics:
            self.events.emit("evaluated", stage=stage, agent=agent, stream=stream, epoch=epoch, metrics=metrics)

    def round_finished(self, stage: str, number: int, times: int, metrics: dict[str, Any]) -> None:
        """Tell of one round, and keep it for the summary."""
        self.rounds.append({"stage": stage, "round": number, "rounds": times, "metrics": metrics})
        self.events.emit("round_finished", stage=stage, round=number, rounds=times, metrics=metrics)

    def count_saved(self, stage: Stage, lesson: Lesson, steps: int) -> None:
        """Count the forwards that the store spared: one per step and stored source, however many read it."""
        active = {edge.source for edge in lesson.edges} | {edge.stream for edge in lesson.edges}
        for outlet in self.supply.outlets(stage):
            if outlet.stale != "snapshot" and (outlet.source in active or outlet.consensus & active):
                self.saved[outlet.source] = self.saved.get(outlet.source, 0) + steps

    def judge(self, name: str, stream: str) -> Generator[list[Any], Any, dict[str, Any]]:
        """Measure a consensus, formed anew on a stream from all its sources."""
        handles = [self.supply.publication(source, stream, whats) for source, whats in self._sources(name).items()]
        (found,) = yield [self.backend.call(self.plan.judge(name), "judge", name, stream, [], *handles)]
        return found

    def _sources(self, name: str) -> dict[str, dict[str, None]]:
        """The agents behind a consensus, also through another one, and what each sends it."""
        out: dict[str, dict[str, None]] = {}
        for edge in self.plan.consensus[name].inputs:
            nested = edge.source in self.plan.consensus
            for source, whats in (self._sources(edge.source) if nested else {edge.source: {edge.what: None}}).items():
                out.setdefault(source, {}).update(whats)
        return out

    def _measure(self) -> Generator[list[Any], Any, dict[str, Any]]:
        """Test and validation metrics of every agent and consensus, at the very end."""
        agents: dict[str, dict[str, Any]] = {name: {} for name in self.plan.spec.agents}
        consensus: dict[str, dict[str, Any]] = {name: {"metrics": {}} for name in self.plan.consensus}
        for stream in ("validation", "test"):
            if stream not in self.checked.streams:
                continue
            found = yield [self.call(agent, "evaluate", agent, stream) for agent in agents]
            for agent, values in zip(agents, found, strict=True):
                agents[agent][stream] = values
                if stream == "test":
                    self.evaluated("", agent, stream, None, values)
            for name in consensus:
                judged = yield from self.judge(name, stream)
                consensus[name]["metrics"][stream] = judged["quality"]
                consensus[name]["oracle"] = judged["oracle"]
        described: dict[str, dict[str, Any]] = {}
        for part in (yield [self.backend.call(host, "describe") for host in self.plan.hosts]):
            described.update(part)
        return summarise(self, agents, consensus, described)

    def _finish(self, generator: Generator[list[Any], Any, dict[str, Any]]) -> dict[str, Any]:
        """Run a generator alone to its end."""
        values: list[Any] | None = None
        try:
            while True:
                values = self.backend.get(generator.send(values))
        except StopIteration as stop:
            return stop.value
