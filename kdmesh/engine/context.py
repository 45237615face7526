"""What the parts of a run share: the plan, the backend, the log, and what was found out so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple

from kdmesh.backends._base import as_argument, wait
from kdmesh.contracts.events import Evaluated, Note
from kdmesh.engine import dropping, notes
from kdmesh.engine.attendance import Attendance
from kdmesh.engine.merging import Merger
from kdmesh.engine.publisher import Publisher, sources
from kdmesh.engine.texts import TextLog
from kdmesh.graph.fragments import hosts_of_ops
from kdmesh.graph.reach import readers
from kdmesh.graph.roles import roles
from kdmesh.hosts.guard import SOFTENED
from kdmesh.hosts.metrics import scalars
from kdmesh.hosts.remote import RemoteHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kdmesh.backends._base import Backend, Handle, P, T, Work
    from kdmesh.checks.checked import Checked
    from kdmesh.engine.checkpoint import Checkpoints
    from kdmesh.engine.events import Events
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.hosts.guard import Oddity
    from kdmesh.hosts.measure import ConsensusFigures
    from kdmesh.hosts.profile import Profile


class At(NamedTuple):
    """When something was measured: steps of the stage that are done, an epoch that is over, and the round under way."""

    stage: str
    step: int | None = None
    epoch: int | None = None
    round: int | None = None


RUN_END = At("")


@dataclass
class StageRecord:
    """What a stage has to tell in the summary; its checkpoints hold it.

    ``records``: of its rounds; ``saved``: reads of publications that spared a forward, ``made``: forwards of sources
    that had finished before, both by agent; ``reason``: why it ended; ``histories``: of consensus nodes,
    their rounds and entries; ``texts``: what was written for its streams, see :mod:`kdmesh.engine.texts`.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    saved: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    histories: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class RunContext:
    """One seed of one mesh on one backend.

    ``folder``: where its files are, None if it writes none; ``checkpoint_seconds``: age at which one is written between
    two chunks of steps; ``tested``: whether everyone is measured on test at the end; ``observing``: what observers
    took, where that and what offered things take is asked for; ``every``: steps between two points of curves, each told
    as it is reached, None for as many as a report shows; ``patience``: seconds that its end waits for parties. To set
    ``pausing`` asks every stage to write a checkpoint and stand still.
    """

    plan: Plan
    checked: Checked
    backend: Backend
    events: Events
    checkpoints: Checkpoints | None = None
    folder: Path | None = None
    checkpoint_seconds: float = 60.0
    tested: bool = True
    observing: Profile | None = None
    every: int | None = None
    patience: float = 600.0

    def __post_init__(self) -> None:
        self.seed = self.plan.spec.seed
        self.publisher = Publisher(self.plan, self.backend)
        self.merger = Merger(self.plan, self.checked, self.backend)
        self.texts = TextLog(self.folder, self.plan)
        self.roles = roles(self.plan)
        self.host_of = self.plan.host_of
        self.pausing = False
        self.attendance = Attendance(self.plan.spec, self.backend, self.events, self.patience, lambda: self.pausing)
        self.which: dict[str, Any] = {}  # what makes it this run: see histories.py
        self.records: dict[str, StageRecord] = {}  # by stage
        self.drops = [] if self.folder is None else dropping.read(self.folder)
        self.odd: set[Oddity] = set()  # what was said of answers
        self.measured: dict[str, dict[str, Any]] = {}  # agent -> its last metrics, by stream
        self.losses = 0  # of hosts, since a checkpoint was written

    def submit(
        self, agent: str, method: Callable[Concatenate[RemoteHost, P], T], *args: P.args, **options: P.kwargs
    ) -> Handle[T]:
        """Submit a call of an agent's host: see :meth:`Backend.submit`."""
        return self.backend.submit(self.host_of[agent], method, *args, **options)

    def evaluate(self, agent: str, stream: str) -> Handle[dict[str, Any]]:
        """A handle of an agent's figures on a stream, after what it sees there, where that is another's output."""
        given = map(as_argument, self.publisher.given(agent, stream))
        return self.submit(agent, RemoteHost.evaluate, agent, stream, *given)

    def hosts(self, stage: Stage) -> list[str]:
        """The hosts that hold a stage's agents, and those that work in its steps: of live frozen sources, say."""
        own = [self.host_of[agent] for agent in stage.agents if agent in self.host_of]
        own += [
            node.home
            for name, node in self.plan.consensus.items()
            if node.home in self.plan.hosts and not {*stage.agents}.isdisjoint(readers(name, self.plan.consensus))
        ]
        pools = self.plan.merging.pools
        own += [self.plan.pool_home(name) for name in pools if {*stage.agents} & {*self.plan.merging.readers(name)}]
        working = [hosts_of_ops(self.plan, phase).values() for phase in stage.phases.values()]
        return list(dict.fromkeys([*own, *(host for names in chain(*working) for host in names)]))

    def load(self, stage: str, folder: Path, state: dict[str, Any], hosts: Iterable[str]) -> Work[None]:
        """Put back every host's part of a checkpoint. Who was not there yet has none, and begins as the file says."""
        assert self.checkpoints is not None
        part, unseen = self.checkpoints.part, {*state.get("unseen", ())}
        parts = {host: part(host, folder) for host in hosts if host not in unseen}
        yield from wait(self.backend.submit(host, RemoteHost.load, stage, given) for host, given in parts.items())
        self.attendance.unseen = unseen & self.backend.absent

    def saved(self, agent: str) -> int:
        """Reads of publications that spared a forward of this agent."""
        return sum(record.saved.get(agent, 0) for record in self.records.values())

    @property
    def away(self) -> set[str]:
        """The agents, weights' owners among them, whose hosts do not take part now."""
        return {agent for host in self.backend.absent for agent in self.plan.hosts.get(host, ())}

    def made(self, agent: str) -> int:
        """Forwards of this agent for stages that it had finished before, or is not trained in."""
        return sum(record.made.get(agent, 0) for record in self.records.values())

    def progressed(self) -> None:
        """A checkpoint was written."""
        self.losses = 0

    def evaluated(self, agent: str, stream: str, metrics: dict[str, Any], at: At = RUN_END) -> None:
        """Tell of one evaluation; ``at``: when, by default at the end of the run."""
        if metrics:
            self.measured.setdefault(agent, {})[stream] = metrics
            self.events.emit(Evaluated(at.stage, agent, stream, at.epoch, scalars(metrics), at.step, at.round))

    def tell_odd(self, found: Iterable[Oddity]) -> None:
        """Report each oddity of outputs once, unless the check has reported it."""
        for oddity in found:
            if oddity not in self.odd and (oddity[2] != SOFTENED or oddity[0] not in self.checked.softmaxes):
                self.odd.add(oddity)
                self.events.emit(Note(notes.on_answers(oddity)))

    def evaluate_consensus(self, name: str, stream: str) -> Work[ConsensusFigures]:
        """Measure a consensus on a stream, computed from fresh publications of all its sources."""
        unaligned = self.plan.consensus[name].unaligned  # it says nothing of samples that could be right or wrong
        if unaligned or self.plan.withheld(name):
            return {"quality": {}, "oracle": False}
        here = {source: outputs for source, outputs in sources(self.plan, name).items() if source in self.host_of}
        handles = [self.publisher.publication(source, stream, outputs) for source, outputs in here.items()]
        host, given = self.plan.evaluator(name), map(as_argument, handles)
        (found,) = yield from wait([self.backend.submit(host, RemoteHost.evaluate_consensus, name, stream, [], *given)])
        return found
