"""One stage at work: its sources publish, its program runs line by line, and checkpoints say where it stands."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.checks.budget import planned_updates
from kdmesh.contracts.events import StageFinished, StageResumed, StageStarted
from kdmesh.engine import texts
from kdmesh.engine.checkpoint import HOSTS
from kdmesh.engine.context import At
from kdmesh.engine.home import StageHome
from kdmesh.engine.position import Paused
from kdmesh.engine.rounds import Rounds
from kdmesh.engine.teach import Teaching
from kdmesh.graph import histories
from kdmesh.graph.program import Publish, Repeat, Train
from kdmesh.graph.renewal import at_line, due, publications
from kdmesh.hosts.remote import RemoteHost
from kdmesh.hosts.step import ALONE, Turn
from kdmesh.offers import AGE

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.backends._base import Work
    from kdmesh.engine.context import RunContext
    from kdmesh.graph.plan import Stage

Line = Train | Publish | Repeat


class StageRun(StageHome):
    """A stage from its start, or from a checkpoint, to its end. Generators yield handles and are sent their values."""

    def __init__(
        self, run: RunContext, stage: Stage, total: int, resume: tuple[Path, dict[str, Any]] | None = None
    ) -> None:
        known = {} if resume is None else resume[1]
        super().__init__(run, stage, known)
        self.resume = resume
        self.teaching = Teaching(self, total, known.get("teaching"))
        self._rounds: list[Rounds] = []
        self._left: list[dict[str, Any]] = known.get("rounds", [])  # of the repetitions that were under way
        self.hosts = run.hosts(stage)
        self._told = False  # whether hosts know of parties that are away

    def execute(self) -> Work[None]:
        """Run the stage."""
        run, stage, start = self.run, self.stage, time.perf_counter()
        submit = run.backend.submit
        begins = StageStarted if self.resume is None else StageResumed
        run.events.emit(begins(stage.name, stage.agents, self.teaching.total))
        updates = planned_updates(run.plan, run.checked, stage)
        yield from wait(run.publisher.labels(stage))
        yield from wait(submit(host, RemoteHost.start, stage.name, updates) for host in self.hosts)
        if self.resume is None:
            run.attendance.unseen = {*run.backend.absent}
        else:
            yield from run.load(stage.name, *self.resume, self.hosts)
        sent = run.publisher.once(stage)
        first = run.publisher.first if self.resume is None else []
        yield from self.publish(sent)
        sizes = yield from wait(run.submit(agent, RemoteHost.passed, agent, stream) for agent, stream in first)
        for (agent, _), size in zip(first, sizes, strict=True):
            self.record.made[agent] = self.record.made.get(agent, 0) + size
        if self.resume is None:
            yield from self.remember(histories.before(run.plan, stage))
            yield from self.publish(run.publisher.begin(stage))
            yield from self.merge(run.merger.once(stage), 0)  # a checkpoint has what came of it
            yield from self.checkpoint()
        else:
            run.publisher.recall(stage, self.resume[1]["published"])
        yield from self._lines(stage.program.body)
        for point in self.teaching.curve.rest(self.teaching.done):
            run.events.emit(point)
        texts.refuse_nothing(run.plan, self.record.texts)
        yield from wait(submit(host, RemoteHost.end, stage.name) for host in self.hosts)
        yield from self.checkpoint(finished=True)
        if "validation" in run.checked.streams:
            evaluations = {name: run.evaluate(name, "validation") for name in stage.agents}
            for agent, values in zip(evaluations, (yield from wait(evaluations.values())), strict=True):
                run.evaluated(agent, "validation", values, At(stage.name, self.teaching.done))
        seconds = round(time.perf_counter() - start, 3)
        run.events.emit(StageFinished(stage.name, self.record.reason or "spent", seconds))

    @property
    def turn(self) -> Turn:
        """Where in the innermost of its rounds it is."""
        return Turn(self.round, self._rounds[-1].agreements, self.who) if self._rounds else ALONE

    @property
    def lessons(self) -> dict[str, int]:
        """How many steps of each lesson are done."""
        return dict(self.teaching.reached)

    def _lines(self, lines: list[Line]) -> Work[None]:
        for index in range(self.position.enter(0), len(lines)):
            self.position.at(index)
            line = lines[index]
            if isinstance(line, Train):
                yield from self.teaching.phase(line)
            elif isinstance(line, Publish):
                at = self.moment(".".join(map(str, self.position.path)))
                yield from self.publish(self.run.publisher.due(self.stage, "round", line.agents, line.to, at))
                yield from self._renewed(line)
                yield from self._heard(line)
                yield from self.remember(histories.after_line(self.run.plan, line))
                yield from self.merge([(name, "round") for name in line.agents], self.teaching.done, line.to)
            else:
                yield from self._repeat(line)
        self.position.leave()
        if self.teaching.stopped >= {name for name in self.stage.weights if name in self.run.plan.spec.agents}:
            self.record.reason = "stopped early"

    def _renewed(self, line: Publish | None = None) -> Work[None]:
        """Make anew what is to be so each round: as its sources publish; where no round does, as it begins."""
        plan, nodes = self.run.plan, due(self.run.plan, self.stage, "round")
        lines = [line] if line is not None else publications(self.stage.program.body)
        heard = {name for name in nodes for one in lines if at_line(plan, one, name)}
        found = {name: who for name, who in nodes.items() if (name in heard) is (line is not None)}
        yield from self.publish(self.run.publisher.renew(found))

    def _heard(self, line: Publish) -> Work[None]:
        """Have the innermost repetition look at a publication, and tell those around it what it saw."""
        if self._rounds:
            yield from self._rounds[-1].published(line.agents, line.to)
        for outer in self._rounds[:-1]:
            outer.start = outer.start or self._rounds[-1].start
            for name in self._rounds[-1].latest:
                outer.hear(name, self._rounds[-1].heard[name])

    def _repeat(self, line: Repeat) -> Work[None]:
        """Rounds, until they are spent or the sources agree."""
        within = ".".join(map(str, self.position.path)) if self.stage.program.several else ""
        first = self.position.enter(1)
        if not line.rounds:
            yield from self._lines(line.body)
            self.position.leave()
            return
        known = self._left.pop(0) if self._left else None
        self._rounds.append(Rounds(self, line.times, line.until, known, within))
        around = self.round
        for number in range(first, line.times + 1):
            self.position.at(number)
            self.round = number
            yield from self._gather(number)
            if not self.position.within:
                yield from self._renewed()
            yield from self._lines(line.body)
            verdict = yield from self._rounds[-1].after(number)
            self.record.reason = verdict or "spent"
            self.position.at(line.times + 1 if verdict else number + 1)
            yield from self.checkpoint()
            if verdict:
                break
            if self.attended and self.run.pausing:
                raise Paused
        if self._told:
            yield from self._away({}, False)  # what is measured at the end is of all
        self.attended = []
        self.run.attendance.everyone()
        self.position.leave()
        self.round = around
        self._rounds.pop()

    def _gather(self, number: int) -> Work[None]:
        """Where not all parties need to take part in a round: wait for those who do."""
        run, asked = self.run, self.run.plan.spec.participation
        if asked is None:
            return
        self.attended = run.attendance.begin(number)
        absent = run.backend.absent
        aged = any(AGE in node.needs for node in run.plan.consensus.values())
        if (absent or self._told) and (asked.stale == "forget" or aged):
            yield from self._away({party: self._missed(party) for party in absent}, asked.stale == "forget")

    def _away(self, parties: dict[str, int], forget: bool) -> Work[None]:
        """Tell hosts who does not take part, and for how many rounds in a row."""
        self._told = bool(parties)
        submit, known = self.run.backend.submit, dict(sorted(parties.items()))
        yield from wait(submit(host, RemoteHost.away, known, forget) for host in self.hosts)

    def _missed(self, party: str) -> int:
        """In how many rounds in a row, with the one that begins, a party did not take part."""
        count = 1
        for record in reversed(self.record.records):
            if party in record.get("attended", ()):
                break
            count += 1
        return count

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoint(self, finished: bool = False) -> Work[None]:
        """Write where the stage stands; every host writes its part."""
        checkpoints = self.run.checkpoints
        if checkpoints is not None:
            self.run.texts.sync()
            before = checkpoints.last(self.stage.name) if self.run.backend.absent else None
            folder = checkpoints.next(self.stage.name)
            submit, name = self.run.backend.submit, self.stage.name
            here = [host for host in self.hosts if host not in self.run.backend.absent]
            places = {host: checkpoints.place(host, folder / HOSTS) for host in here}
            parts = yield from wait(submit(host, RemoteHost.save, name, place) for host, place in places.items())
            if before is not None:  # who did not take part is as it was
                away = [host for host in self.hosts if host not in here and host not in self.run.attendance.unseen]
                parts += [checkpoints.kept(host, before) for host in away]
            state = {
                "finished": finished,
                "at": self.position.path,
                "teaching": self.teaching.state(),
                "rounds": [rounds.state() for rounds in self._rounds],
                **asdict(self.record),
                "published": self.run.publisher.published_of(self.stage),
                "odd": sorted(self.run.odd),
                "unseen": sorted(self.run.attendance.unseen),
            }
            checkpoints.complete(self.stage.name, folder, checkpoints.collect(folder, parts), state)
            self.written = time.monotonic()
            self.run.progressed()
