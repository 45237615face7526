"""A run: stages in the plan's order, those without a path between them side by side, then the measurements.

A host that is lost takes its part of every stage with it: all hosts are built anew, each stage goes back to its last
checkpoint, and its steps are made again, to equal bits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.checks.budget import stage_steps
from kdmesh.contracts import events as kinds
from kdmesh.contracts.run_files import LOG
from kdmesh.engine import accounts, dropping, notes, spent
from kdmesh.engine.answers import gathered
from kdmesh.engine.attendance import Regroup
from kdmesh.engine.context import RunContext
from kdmesh.engine.costs import Meter, counted
from kdmesh.engine.events import progressed
from kdmesh.engine.measured_texts import measured_texts
from kdmesh.engine.merging import Merger
from kdmesh.engine.position import Paused
from kdmesh.engine.publisher import Publisher
from kdmesh.engine.spared import told
from kdmesh.engine.stage import StageRun
from kdmesh.engine.summary import summarise
from kdmesh.errors import HostLost, MeshError
from kdmesh.hosts.guard import MOVED, SOFTENED
from kdmesh.hosts.remote import RemoteHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from kdmesh.backends._base import Handle, T, Work
    from kdmesh.graph.plan import Stage
    from kdmesh.hosts.source import Source
    from kdmesh.hosts.state import HostConfig

TRIES = 3  # times that hosts may be lost with no checkpoint written in between


@dataclass(eq=False)
class Run(RunContext):
    """A run's work: :meth:`open` its hosts, then :meth:`execute`, which returns the summary."""

    stages: dict[str, StageRun] = field(default_factory=dict, init=False)
    meter: Meter = field(default_factory=Meter, init=False)
    answers: bytes | None = field(default=None, init=False)  # answers.safetensors, once everything is measured
    _done: set[str] = field(default_factory=set, init=False)

    def open(self, config: HostConfig, source: Source) -> None:
        """Build every host; where one is lost meanwhile, build all again."""
        try:
            self.backend.open(config, source)
        except HostLost as lost:
            self._rebuild(lost)

    def execute(self, finish: Callable[[dict[str, Any]], None] | None = None, resume: bool = False) -> dict[str, Any]:
        """Train every stage and measure everyone; ``finish`` takes the summary while the hosts are there.

        ``resume``: go on from the checkpoints. Raises KeyboardInterrupt once every stage stands still.
        """
        start = time.perf_counter()
        steps = {stage.name: stage_steps(self.plan, self.checked, stage) for stage in self.plan.stages}
        begins = kinds.RunResumed if resume else kinds.RunStarted
        stages: list[kinds.StageSize] = [
            {"stage": one.name, "agents": one.agents, "steps": steps[one.name]} for one in self.plan.stages
        ]
        mesh = self.plan.spec
        self.events.emit(begins(mesh.name, mesh.seed, self.backend.name, self.plan.hosts, stages))
        back = resume
        while True:
            try:
                if self.checkpoints is not None:  # each time: a host that was rebuilt may be on another machine
                    self._finish(self.checkpoints.find_apart(self.backend, self.plan.hosts))
                if back:
                    self._finish(self._restore(steps))
                self._schedule(steps)
                self._all_back()
                summary = self._finish(self._measure())
                summary["wall_s"] = round(time.perf_counter() - start, 3)
                if finish is not None:
                    finish(summary)
                return summary
            except Regroup:
                back = True
                try:
                    self.backend.rebuild(self.plan)
                except HostLost as lost:
                    self._rebuild(lost)
            except HostLost as lost:
                back = True
                self._rebuild(lost)

    def _all_back(self) -> None:
        try:
            self.attendance.everyone()
        except Paused:
            raise KeyboardInterrupt from None
        if never := sorted(self.backend.absent & self.attendance.unseen):
            self._left_out(never)

    def _left_out(self, parties: list[str]) -> None:
        """Parties that never came have nothing to be measured."""
        agents = [agent for party in parties for agent in self.plan.hosts[party]]
        self.drops.append({"agents": agents, "at": {}, "known": {}, "parties": parties})
        if self.folder is not None:
            dropping.write(self.folder, self.drops)
        self.events.emit(kinds.Note(notes.never_there(parties, agents)))
        self.plan = self.plan.without(agents)
        self.host_of = self.plan.host_of

    # -- losses ----------------------------------------------------------------------------------------------------

    def _rebuild(self, lost: HostLost) -> None:
        """After a loss: build every host anew, but for those that are dropped, unless an agent there says `stop`, or
        nothing gets done any more.
        """
        while True:
            self.events.emit(kinds.HostLost(lost.host, lost.what))
            self.losses += 1
            tries = TRIES if self.plan.spec.participation is None else float("inf")  # a round begins when it can
            if self.checkpoints is None or self.losses > tries:
                raise lost
            silent = {*lost.host.split(", "), *self.backend.lost()}
            hosts = [host for host in self.plan.hosts if host in silent]
            if "stop" in (self._policy(name) for host in hosts for name in self.plan.hosts[host]):
                raise lost
            self._drop([host for host in hosts if {*map(self._policy, self.plan.hosts[host])} == {"drop"}])
            try:
                return self.backend.rebuild(self.plan)
            except HostLost as again:
                lost = again

    def _policy(self, agent: str) -> str:
        return self.plan.spec.agents[agent].on_loss

    def _drop(self, hosts: Iterable[str]) -> None:
        """Go on without these hosts, where their agents only teach in what is left; keep a log of it."""
        assert self.checkpoints is not None
        for host in hosts:
            folders = {stage.name: self.checkpoints.last(stage.name) for stage in self.plan.stages}
            over = {name for name, at in folders.items() if at and self.checkpoints.state(at)["finished"]}
            left = [stage for stage in self.plan.stages if stage.name not in over]
            agents, names = self.plan.hosts[host], ", ".join(self.plan.hosts[host])
            if why := dropping.obstacle(self.plan, agents, left):
                self.events.emit(kinds.Note(f"not dropped but restarted: {names}; {why}"))
                continue
            at = {stage.name: folder.name if (folder := folders[stage.name]) else None for stage in left}
            known = {name: self.measured.get(name, {}) for name in agents}
            self.drops.append({"agents": agents, "at": at, "known": known})
            if self.folder is not None:
                dropping.write(self.folder, self.drops)
            self.events.emit(kinds.Dropped(agents, at))
            self.plan = self.plan.without(agents)
            self.host_of = self.plan.host_of

    def _restore(self, steps: dict[str, int]) -> Work[None]:
        """Take every stage back to its last sound checkpoint; the hosts are new."""
        assert self.checkpoints is not None
        self.publisher = Publisher(self.plan, self.backend)
        self.merger = Merger(self.plan, self.checked, self.backend)
        self.stages, self.records, self._done = {}, {}, set()
        for stage in self.plan.stages:
            hosts = self.hosts(stage)
            folder = self.checkpoints.last(stage.name, self._passed, hosts)
            if folder is None:
                self._from_start(stage)
                continue
            state = self.checkpoints.state(folder)
            self._add(StageRun(self, stage, steps[stage.name], (folder, state)))
            self.publisher.published.update((source, stream) for source, stream in state["published"])
            self.publisher.remember(stage)
            self.odd.update((agent, stream, kind) for agent, stream, kind in state.get("odd", ()))
            if state["finished"]:
                self._done.add(stage.name)
                self.events.emit(kinds.StageFinishedBefore(stage.name))
                yield from self.load(stage.name, folder, state, hosts)
                yield from wait(self.backend.submit(host, RemoteHost.end, stage.name) for host in hosts)

    def _add(self, stage: StageRun) -> None:
        self.stages[stage.stage.name], self.records[stage.stage.name] = stage, stage.record

    def _from_start(self, stage: Stage) -> None:
        """Tell that a stage starts over, which needs consent; not where it had no checkpoint yet."""
        assert self.checkpoints is not None
        log = None if self.folder is None else self.folder / LOG
        if not self.checkpoints.had(stage.name) and (log is None or stage.name not in progressed(log)):
            return
        what = f"no sound checkpoint is left of the stage {stage.name!r}: its work would be done again from the start"
        if not self.checkpoints.from_start:
            raise MeshError(
                what, file=str(self.folder or ""), instead="put the checkpoints back, or say --from-start to resume"
            )
        self.events.emit(kinds.Note(f"the stage {stage.name!r} begins from the start: it has no sound checkpoint"))

    def _passed(self, folder: Path, why: str) -> None:
        self.events.emit(kinds.Note(f"the checkpoint {folder} is passed over: {why}"))

    # -- scheduling ------------------------------------------------------------------------------------------------

    def _schedule(self, steps: dict[str, int]) -> None:
        """Advance every stage whose handles are there; start a stage when those it waits for are done."""
        left = {stage.name: stage for stage in self.plan.stages if stage.name not in self._done}
        active: dict[str, tuple[Work[None], Sequence[Handle[object]]]] = {}  # with what each waits for

        def advance(name: str, values: list[Any] | None) -> None:
            generator = active[name][0]
            try:
                handles: Sequence[Handle[object]] = []
                while not handles:  # nothing to wait for: go on at once
                    handles = generator.send(values)
                    values = []
                active[name] = (generator, handles)
            except StopIteration:
                del active[name]
                self._done.add(name)
            except Paused:
                del active[name]

        while left or active:
            for name, stage in list(left.items()):
                if stage.waits <= self._done and not self.pausing:
                    del left[name]
                    if name not in self.stages:
                        self._add(StageRun(self, stage, steps[name]))
                    active[name] = (self.stages[name].execute(), [])
                    advance(name, None)
            if not active:
                if self.pausing:
                    break
                continue
            names = list(active)
            first = self.backend.wait_any([active[name][1][-1] for name in names]) if len(names) > 1 else 0
            advance(names[first], self.backend.get(active[names[first]][1]))
        if self.pausing:
            raise KeyboardInterrupt

    # -- measuring -------------------------------------------------------------------------------------------------

    def _measure(self) -> Work[dict[str, Any]]:
        """Validation and, where it is asked for, test metrics of every agent and consensus, at the very end."""
        agents: dict[str, dict[str, Any]] = {name: {} for name in self.plan.spec.agents}
        for drop in self.drops:
            agents.update(drop["known"])
        here = [name for name in agents if name in self.host_of]
        consensus: dict[str, dict[str, Any]] = {name: {"metrics": {}} for name in self.plan.consensus}
        for stream in ("validation", "test") if self.tested else ("validation",):
            if stream not in self.checked.streams:
                continue
            found = yield from wait(self.evaluate(agent, stream) for agent in here)
            for agent, values in zip(here, found, strict=True):
                agents[agent][stream] = values
                if stream == "test":
                    self.evaluated(agent, stream, values)
            for name in filter(self.plan.evaluator, consensus):
                judged = yield from self.evaluate_consensus(name, stream)
                consensus[name]["metrics"][stream] = judged["quality"]
                consensus[name]["oracle"] = judged["oracle"]
                if "answered" in judged:
                    consensus[name].setdefault("answered", {})[stream] = judged["answered"]
        said = yield from measured_texts(self)
        measured = [name for name in consensus if self.plan.evaluator(name)]
        reports = [self.backend.submit(self.plan.evaluator(name), RemoteHost.report, name) for name in measured]
        for name, figures in zip(measured, (yield from wait(reports)), strict=True):
            consensus[name] |= {"report": figures} if figures else {}
        described: dict[str, dict[str, Any]] = {}
        for part in (yield from wait(self.backend.submit(host, RemoteHost.describe) for host in self.plan.hosts)):
            described.update(part)
        self.tell_odd([(name, "", SOFTENED) for name, facts in described.items() if facts["softened"]])
        self.tell_odd([(name, facts["put_back"], MOVED) for name, facts in described.items() if facts["put_back"]])
        owners = self.plan.owner
        for text in (*notes.learned_nothing(described, owners), *notes.left_out(described, owners)):
            self.events.emit(kinds.Note(text))
        self.texts.finish()
        summary = summarise(self, agents, consensus, described, said, (yield from accounts.spent(self)))
        yield from told(self, summary)
        yield from spent.told(self, summary)
        self.answers, summary["answers"] = yield from gathered(self)
        summary["costs"] = yield from counted(self, self.meter, sum(one.teaching.done for one in self.stages.values()))
        return summary

    def _finish(self, work: Work[T]) -> T:
        """Run it alone to its end."""
        values: list[Any] | None = None
        try:
            while True:
                values = self.backend.get(work.send(values))
                if self.pausing:
                    raise KeyboardInterrupt
        except StopIteration as stop:
            return stop.value
