"""Labelling: what runs of a mesh ask of its frozen agents is put into the store ahead of them."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from kdmesh.backends.needs import needs_of
from kdmesh.checks.budget import stage_steps
from kdmesh.engine.check import examine
from kdmesh.engine.launch import blueprint
from kdmesh.engine.looked_up import settled
from kdmesh.engine.publisher import Publisher, sources
from kdmesh.engine.request import Request
from kdmesh.engine.spared import kept_at
from kdmesh.errors import MeshError, RunFailed, nearest
from kdmesh.files import reason
from kdmesh.graph.looked_up import THERE, looked_up
from kdmesh.graph.planner import make_plan
from kdmesh.graph.served import ASKED, served
from kdmesh.graph.unkept import frozen, unkept
from kdmesh.hosts.filling import Filled, Filler, Passed, Piece, asks
from kdmesh.hosts.host import Host
from kdmesh.hosts.identity import Unknown
from kdmesh.placement.settle import resolve, threaded
from kdmesh.placement.sizes import GB, machine, memory, process
from kdmesh.plugins import registry
from kdmesh.store.remote import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kdmesh.backends._base import Backend
    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.state import HostConfig
    from kdmesh.spec import MeshSpec

HOST = "label"
ACCESS = "a folder that you may write to"


@dataclass
class Far:
    """How far the labelling of one agent is.

    ``rows``: samples, each in one view, that runs ask for, ``there`` of them from the start; ``forwards``: that the
    rest will take, about; ``done``: of the rest, so far; ``seconds``: since the work on it began.
    """

    agent: str
    rows: int = 0
    there: int = 0
    forwards: int = 0
    done: Filled = field(default_factory=Filled)
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        known = asdict(self.done) | {"seconds": round(self.seconds, 3), "actor_seconds": round(self.done.seconds, 3)}
        del known["rows"], known["notes"], known["lost"]
        return {"rows": self.rows, "there": self.there, **known}


@dataclass(frozen=True)
class Asked:
    """What to label: a mesh and agents of it, none: all frozen ones that can be; and how.

    ``actors``: processes of Ray with a copy of the agent each; None: in this process.
    """

    spec: MeshSpec
    agents: tuple[str, ...] = ()
    store: str | None = None
    actors: int | None = None
    ray_address: str | None = None


@dataclass
class Labelled:
    """What there is to be said at the end. ``left``: of agents that were not named, why nothing is kept."""

    store: str
    agents: dict[str, Far]
    left: dict[str, str]
    notes: list[str]
    seconds: float

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        agents = {name: far.record() for name, far in self.agents.items()}
        seconds = round(self.seconds, 3)
        return {"store": self.store, "seconds": seconds, "agents": agents, "not_kept": self.left, "notes": self.notes}


def label(asked: Asked, told: Callable[[Far], None] = lambda far: None) -> Labelled:
    """Forward the agents over all that runs of the mesh ask of them and the store lacks, and keep it there.

    ``told``: called with how far each agent is, as its work begins and after each piece of it. MeshError for agents
    whose answers are not kept, and stores that take none, before anything is forwarded.
    """
    start = perf_counter()
    plan = make_plan(asked.spec, registry())
    names, left = _agents(plan, asked.agents)
    place = _place(asked.store)
    plan = replace(plan, spec=settled(plan.spec, place))
    checked = examine(plan, here=asked.ray_address is None)
    plan = replace(plan, spec=threaded(plan.spec, resolve(plan, checked, {}, machine(), inline=True).threads))
    if asked.ray_address is None and asked.actors is not None:
        _refuse_memory(plan, checked, names, asked.actors)
    work = Work(asked, plan, checked, place)
    surveyed = {name: work.survey(name) for name in names}
    for far, _ in surveyed.values():
        told(far)
    with closing(work):
        for name, (far, pieces) in surveyed.items():
            if pieces:
                work.fill(name, far, pieces, told)
    fars = {name: far for name, (far, _) in surveyed.items()}
    return Labelled(place, fars, left, work.notes, perf_counter() - start)


def _agents(plan: Plan, named: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The agents to label, and of others why not. MeshError for one that is named and of which nothing is kept."""
    still, why = frozen(plan), unkept(plan, registry())
    read = {edge.source for edge in plan.edges}
    there = dict.fromkeys(looked_up(plan, registry()), THERE) | dict.fromkeys(served(plan, registry()), ASKED)
    for name in named:
        if name not in plan.spec.agents:
            raise MeshError(
                f"there is no agent {name!r}", where="--agents", instead=nearest(name, still, "frozen agents")
            )
        if name not in still:
            what = f"{name} trains in this mesh: what it says now is not what it says then"
            raise MeshError(what, where="--agents", instead=f"frozen agents: {', '.join(still) or 'none'}")
        if name in there:
            raise MeshError(f"{name}: {there[name]}", where="--agents", instead="agents that compute their answers")
        if name not in read:
            raise MeshError(f"no flow carries what {name} says", where="--agents", instead="agents that teach")
        if name in why:
            raise MeshError(f"what {name} says is not kept: {why[name].why}", where=why[name].where,
                            instead=why[name].instead)  # fmt: skip
    if named:
        return list(dict.fromkeys(named)), {}
    usable = [name for name in still if name in read and name not in why and name not in there]
    if not usable:
        told = "; ".join(f"{name}: {one.why}" for name, one in why.items())
        what = "no frozen agent teaches whose answers are kept" + (f" ({told})" if told else "")
        raise MeshError(what, where="agents", instead="an agent with `update: frozen`")
    return usable, {name: one.why for name, one in why.items()}


def _place(store: str | None) -> str:
    """Where answers go. MeshError for nowhere, and where nothing can be written."""
    place = kept_at(store)
    if not place:
        raise MeshError("the store is switched off", where="--store", instead="the folder of a store, or a URL")
    if is_url(place):
        return place
    path = Path(place)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise MeshError(f"nothing can be written there: {reason(error)}", file=place, where="--store",
                        instead=ACCESS) from None  # fmt: skip
    return place


def _refuse_memory(plan: Plan, checked: Checked, names: Sequence[str], actors: int) -> None:
    """Refuse an embedded Ray that has no memory for its actors."""
    has = machine().memory
    for name in names:
        each = process(checked) + memory(plan, checked, [name])
        if actors * each > has:
            raise MeshError(
                f"{actors} actors with {name} take {actors * each / GB:.2f} GB of memory, and this machine has "
                f"{has / GB:.2f}",
                where="--actors",
                instead=f"--actors {int(has // each)}" if has >= each else "a machine with more memory, or a cluster",
            )


class Work:
    """The work on all agents, one after the other."""

    def __init__(self, asked: Asked, plan: Plan, checked: Checked, place: str) -> None:
        self._plan, self._actors, self._address = plan, asked.actors, asked.ray_address
        request = Request(plan.spec, ray_address=asked.ray_address, store=place)
        self._config, self._source = blueprint(request, plan, checked)
        self._checked = checked
        self._steps = {stage.name: stage_steps(plan, checked, stage) for stage in plan.stages}
        self._passes = passes(plan, {*checked.streams})
        self._here: tuple[str, Filler] | None = None  # one agent has memory at a time
        self._pool: Any = None
        self.notes: list[str] = []

    def survey(self, name: str) -> tuple[Far, list[Piece]]:
        """What runs ask of an agent, and what of it lacks. MeshError where its answers are not kept."""
        try:
            filler = self._filler(name)
            wanted = asks(filler.host, name, self._passes.get(name, ()), self._steps)
            rows, pieces = filler.survey(wanted, self._actors or 1)
        except Unknown as why:
            raise MeshError(f"what {name} says is not kept: {why}", where=f"agents.{name}",
                            instead="a run computes it live: leave it out of --agents") from None  # fmt: skip
        lacking = sum(len(piece.at) for piece in pieces)
        return Far(name, rows, rows - lacking, sum(map(filler.forwards, pieces))), pieces

    def fill(self, name: str, far: Far, pieces: Sequence[Piece], told: Callable[[Far], None]) -> None:
        """Do pieces, and tell how far it is after each. RunFailed where the store takes no more."""
        start = perf_counter()
        for done in self._done(name, pieces):
            far.done, far.seconds = far.done + done, perf_counter() - start
            told(far)
            if done.lost:
                why = done.notes[-1] if done.notes else "nothing was written"
                raise RunFailed(f"what {name} says is not kept: {why}", where="--store", file=self._config.store,
                                instead="mend that; then the same command goes on")  # fmt: skip
        self.notes += [note for note in far.done.notes if note not in self.notes]

    def _done(self, name: str, pieces: Sequence[Piece]) -> Iterator[Filled]:
        if self._actors is None and self._address is None:
            yield from map(self._filler(name), pieces)
            return
        self._here = None  # its memory is the actors'
        if self._pool is None:
            from kdmesh.backends import make_pool

            self._pool = make_pool(self._address, self._actors or 1)
        config = self._of(name)
        for _, done in self._pool(config, self._source, needs_of(config.plan)[HOST], pieces):
            yield done

    def _of(self, name: str) -> HostConfig:
        return replace(self._config, plan=replace(self._plan, hosts={HOST: [name]}))

    def _filler(self, name: str) -> Filler:
        if self._here is None or self._here[0] != name:
            self._here = None
            read, config = self._checked, self._of(name)
            host = Host(HOST, config, read.table, read.streams, registry(), read=read.reading.read)
            self._here = name, Filler(host)
        return self._here[1]

    def close(self) -> None:
        """End what was started for it."""
        if self._pool is not None:
            self._pool.close()


def passes(plan: Plan, streams: set[str]) -> dict[str, list[Passed]]:
    """By agent: the passes over whole streams that a run makes, to teach from and to measure a consensus or a reader.

    ``streams``: of the data.
    """
    found: dict[str, list[Passed]] = {}

    def add(agent: str, stream: str, outputs: Sequence[str], measuring: bool) -> None:
        found.setdefault(agent, []).append(Passed(stream, tuple(outputs), measuring))

    publisher = Publisher(plan, cast("Backend", None))
    for stage in plan.stages:
        for one in publisher.subscriptions(stage):
            if one.stale == "publish":
                add(one.source, one.stream, one.outputs, False)
        for edge in (edge for phase in stage.phases.values() for edge in phase.edges):
            if edge.as_ == "input" and not edge.live:
                add(edge.source, publisher.base(edge.stream), [edge.output], False)
    for stream in sorted({"validation", "test"} & streams):
        for name in (name for name, node in plan.consensus.items() if not (node.unaligned or plan.withheld(name))):
            for source, outputs in sources(plan, name).items():
                if source in plan.spec.agents:
                    add(source, stream, [*outputs], True)
        for edge in plan.inputs.values():
            if edge.source in plan.spec.agents:
                add(edge.source, stream, [edge.output], True)
    for agent in filter(plan.judged, plan.spec.agents):
        add(agent, "validation", [], True)
    return found
