"""The events of a run: a class for each kind, as they are told to listeners and written to ``events.jsonl``.

The file has one JSON object per line: ``event`` (the kind), ``t`` and the fields of that kind. The first line that a
process writes also has ``schema``, the number `SCHEMA`. docs/events.md is generated from these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

SCHEMA = 1
"""Rises when a kind or a field goes away or changes its meaning; not when one is added."""

LARGEST = 2**53
"""Of whole numbers in events: as real ones they are exact."""

Hosts = dict[str, list[str]]  # the agents of each host

KINDS: dict[str, type[Event]] = {}
"""The class of each kind."""


class StageSize(TypedDict):
    """A stage as `run_started` lists it: its name, its agents, and its steps in all."""

    stage: str
    agents: list[str]
    steps: int


@dataclass(frozen=True)
class Event:
    """What every event has.

    Attributes:
        t: seconds since the log was opened by this process, to the millisecond.
    """

    kind: ClassVar[str]

    t: float = field(default=0.0, kw_only=True)

    def __init_subclass__(cls, kind: str) -> None:
        cls.kind = kind
        KINDS[kind] = cls

    def record(self) -> dict[str, Any]:
        """The event as a line of the file holds it: the kind, ``t``, then the other fields."""
        return {"event": self.kind, **{one.name: getattr(self, one.name) for one in fields(self)}}


def read(record: object) -> Event | None:
    """The event that a line of the file holds.

    Fields that this version does not know are left out, so that logs of later versions can be read. None where the
    kind is not known, a field is missing, or one is of another type than its class says.
    """
    if not isinstance(record, Mapping) or (kind := KINDS.get(str(record.get("event")))) is None:
        return None
    for name, needed, fits in _forms(kind.kind):
        if not (fits(record[name]) if name in record else not needed):
            return None
    return kind(**{name: record[name] for name, *_ in _forms(kind.kind) if name in record})


@cache
def _forms(name: str) -> tuple[tuple[str, bool, Callable[[Any], bool]], ...]:
    """The fields of a kind: each one's name, whether an event must have it, and what says whether a value fits it."""
    hints = get_type_hints(KINDS[name])
    return tuple((one.name, one.default is MISSING, _form(hints[one.name])) for one in fields(KINDS[name]))


def _form(hint: Any) -> Callable[[Any], bool]:
    """What says whether a value of JSON is of a type that a field of an event is declared with."""
    inner = [_form(one) for one in get_args(hint)]
    origin = get_origin(hint) or hint
    if hint is Any:
        return lambda value: True
    if origin is UnionType:
        return lambda value: any(fits(value) for fits in inner)
    if is_typeddict(hint):
        each = {name: _form(one) for name, one in get_type_hints(hint).items()}
        return lambda value: (
            isinstance(value, dict) and all(name in value and fits(value[name]) for name, fits in each.items())
        )
    if origin in (dict, Mapping):
        return lambda value: isinstance(value, Mapping) and all(map(inner[1], value.values()))
    if origin is list:
        return lambda value: isinstance(value, list) and all(map(inner[0], value))
    if origin is float:
        return lambda value: type(value) is float or (type(value) is int and abs(value) <= LARGEST)
    if origin is int:
        return lambda value: type(value) is int and abs(value) <= LARGEST
    assert origin in (str, bool, NoneType), hint
    return lambda value: type(value) is origin


@dataclass(frozen=True)
class PartStarted(Event, kind="part_started"):
    """A seed or a control begins, in a command that trains several.

    Attributes:
        part: its name, as `seed 0`.
        number: its place among the parts, from 1.
        parts: how many parts there are.
        behind: steps of the parts before it.
        ahead: steps of the parts after it.
    """

    part: str
    number: int
    parts: int
    behind: int
    ahead: int


@dataclass(frozen=True)
class Placed(Event, kind="placed"):
    """`placement: auto` or `threads: auto` is settled.

    Attributes:
        hosts: the agents of each host.
        lines: the arithmetic, in lines of text.
    """

    hosts: Hosts
    lines: list[str]


@dataclass(frozen=True)
class HostsOpening(Event, kind="hosts_opening"):
    """The hosts are about to be built.

    Attributes:
        backend: `inline` or `ray`.
        hosts: the agents of each host.
    """

    backend: str
    hosts: Hosts


@dataclass(frozen=True)
class RunStarted(Event, kind="run_started"):
    """Every host is built, and training begins.

    Attributes:
        name: of the mesh.
        seed: the run seed.
        backend: `inline` or `ray`.
        hosts: the agents of each host.
        stages: per stage its name (`stage`), `agents` and `steps`.
    """

    name: str
    seed: int
    backend: str
    hosts: Hosts
    stages: list[StageSize]


@dataclass(frozen=True)
class RunResumed(RunStarted, kind="run_resumed"):
    """As `run_started`, of a run that continues from its checkpoints."""


@dataclass(frozen=True)
class StageStarted(Event, kind="stage_started"):
    """A stage begins.

    Attributes:
        stage: its name.
        agents: those that it trains, or that compute in it.
        steps: how many steps it has in all.
    """

    stage: str
    agents: list[str]
    steps: int


@dataclass(frozen=True)
class StageResumed(StageStarted, kind="stage_resumed"):
    """As `stage_started`, of a stage that continues from a checkpoint."""


@dataclass(frozen=True)
class StageFinishedBefore(Event, kind="stage_finished_before"):
    """In a resumed run: a stage that has nothing left to do.

    Attributes:
        stage: its name.
    """

    stage: str


@dataclass(frozen=True)
class Progress(Event, kind="progress"):
    """Steps were done. Listeners are told; the file does not have it.

    Attributes:
        stage: its name.
        done: steps done so far.
        steps: how many steps it has in all.
        losses: the latest loss of each agent; null where it is not finite.
    """

    stage: str
    done: int
    steps: int
    losses: Mapping[str, float | None]


@dataclass(frozen=True)
class Trained(Event, kind="trained"):
    """What a stage's steps since the last such event had for losses: curves are made of these.

    There are at most 200 of a stage, evenly spread over its steps and at least 16 apart, and one at the end of every
    epoch where these are at most 200, too. They depend on the mesh and its seed alone; a resumed run tells again of the
    steps that it makes again.

    Attributes:
        stage: its name.
        step: how many of its steps are done.
        epoch: where one ends here, its number within the phase, from 1; else null.
        losses: per agent, the mean over steps of the sum of its flows' losses; null where it is not finite.
        flows: per agent, the mean loss of each flow into it, weighted as it is trained with, by its name: `t -> s`,
            with objective and stream where several go from one to the other.
        round: the round under way, from 1; null outside rounds.
        rewards: of each stream that an agent wrote texts for in these steps, the mean of their rewards, where verifiers
            say how right they are; of texts that are written once there is no curve.
    """

    stage: str
    step: int
    epoch: int | None
    losses: Mapping[str, float | None]
    flows: Mapping[str, Mapping[str, float | None]]
    round: int | None = None
    rewards: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated(Event, kind="evaluated"):
    """An agent was measured.

    Attributes:
        stage: the stage in which it was measured; empty at the end of the run.
        agent: its name.
        stream: the samples it was measured on.
        epoch: after which epoch of its phase; null at the end of the stage, and of the run.
        metrics: the metrics of the task and of the mesh, by name, as docs/plugins/reference.md explains.
        step: how many steps of the stage are done; null at the end of the run.
        round: the round under way, from 1; null outside rounds.
    """

    stage: str
    agent: str
    stream: str
    epoch: int | None
    metrics: Mapping[str, float | None]
    step: int | None = None
    round: int | None = None


@dataclass(frozen=True)
class RoundFinished(Event, kind="round_finished"):
    """One repetition of a stage's program is over.

    Attributes:
        stage: its name.
        round: its number, from 1.
        rounds: how many there are at most.
        metrics: `agreement` of the agents and `churn` since the round before (shares of the samples, or null), of the
            consensus that `until` names, or the only one that was published to; `agreements`, where there are several,
            both by consensus;
            `consensus` (metrics of each consensus, of what it answered) and, of those that may abstain, `coverage`
            (the share of the samples that each answered); the metric by which agents are compared under its name, and
            `gain` since before the first round, both by agent.
        within: in a program of several repetitions which one it is, by lines from 0: `2`, or, of one in another, its
            line and the turn of that before its own, as `1.3.0` in the third turn of line 1; else empty.
        attended: of a mesh with `participation`, the parties that took part; else null.
    """

    stage: str
    round: int
    rounds: int
    metrics: dict[str, Any]
    within: str = ""
    attended: list[str] | None = None


@dataclass(frozen=True)
class StageFinished(Event, kind="stage_finished"):
    """A stage is over.

    Attributes:
        stage: its name.
        reason: `spent` (its budget), `stopped early`, `agreed` or `patience`.
        seconds: how long it took in this process.
    """

    stage: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class HostLost(Event, kind="host_lost"):
    """A host's process ended, was killed, ran out of memory, or stopped answering.

    Attributes:
        host: its name.
        error: what happened.
    """

    host: str
    error: str


@dataclass(frozen=True)
class Dropped(Event, kind="dropped"):
    """The run continues without agents whose host was lost.

    Attributes:
        agents: their names.
        at: per stage that is not over, the checkpoint it continues from; null where it begins.
    """

    agents: list[str]
    at: dict[str, str | None]


@dataclass(frozen=True)
class TextsWritten(Event, kind="texts_written"):
    """An agent wrote texts for a stream: those of the steps since the last such event of it.

    Attributes:
        stage: the stage that reads them.
        stream: the stream's name.
        agent: who wrote them.
        step: at which step of the phase the last of them were written.
        written: how many texts.
        kept: how many of these are learned.
        dropped: how many of the others, by the filter that dropped them.
        empty: steps of whose texts none is kept, so that they add no loss.
        reward: the mean of their rewards; null where nothing says how right they are.
    """

    stage: str
    stream: str
    agent: str
    step: int
    written: int
    kept: int
    dropped: Mapping[str, int]
    empty: int
    reward: float | None = None


@dataclass(frozen=True)
class Note(Event, kind="note"):
    """Something worth knowing about the mesh or its run.

    Attributes:
        text: one or several sentences.
        checked: whether it was known before the run.
    """

    text: str
    checked: bool = False


@dataclass(frozen=True)
class RunFailed(Event, kind="run_failed"):
    """The run ended with an error, or was interrupted.

    Attributes:
        error: the message.
        interrupted: whether somebody asked for it, or a budget is spent: it waits to be resumed.
    """

    error: str
    interrupted: bool


@dataclass(frozen=True)
class RunFinished(Event, kind="run_finished"):
    """The run is over, and its summary is written.

    Attributes:
        seconds: how long it took in this process.
        folder: where its files are; null if it writes none.
    """

    seconds: float
    folder: str | None
