"""What the driver submits for one step, window or round: as `kdmesh/engine` does, host by host."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from flow_sim import Call, Costs, Group

from kdmesh.engine.teach import AHEAD, WINDOW

FORWARD = 1 / 3  # of a training step


@dataclass(frozen=True)
class Model:
    """Seconds, of one batch: of training, a frozen teacher's step, a source of a loss, one more, a publication."""

    train: float
    still: float
    first: float
    term: float
    publish: float
    batch: int
    parameters: int
    classes: int = 10
    rounds: float = 0.0  # of a round on one host, beside its steps, its publication and all that calls cost

    def hears(self, sources: int) -> float:
        """Seconds that a batch's losses of so many sources take."""
        return self.first + (sources - 1) * self.term if sources else 0.0

    @property
    def sends(self) -> int:
        """Bytes of a batch's logits."""
        return self.batch * self.classes * 4


Window = list[Call]


def ensemble(model: Model, hosts: int, _: float) -> Window:
    """Frozen teachers, each on a host, and a student: a call each for a window, one more for its first forward."""
    spoken = Group()
    calls = [Call(host, WINDOW * model.still, done=spoken) for host in range(hosts - 1)]
    combine = WINDOW * model.hears(hosts - 1)
    first, student = FORWARD * model.train, hosts - 1
    learn = Call(student, WINDOW * model.train - first, spoken, hosts - 1, WINDOW * model.sends, combine)
    return [*calls, Call(student, first), learn]


def mutual(model: Model, hosts: int, share: float = FORWARD) -> Window:
    """Peers, each on a host: between two exchanges an update and the next forward."""
    calls, before = [], None
    for number in range(WINDOW + 1):
        spoken = Group()
        seconds = model.train * ((1 - share if number else 0.0) + (share if number < WINDOW else 0.0))
        args = hosts - 1 if number else 0
        combine = model.hears(args)
        calls += [Call(host, seconds, before, args, model.sends, combine, done=spoken) for host in range(hosts)]
        before = spoken
    return calls


def windows(
    window: Window, ops: int, edges: int, costs: Costs, flight: deque[Window]
) -> Iterator[Call | list[Call] | tuple[str, float]]:
    """Cut and submit a window; wait for the oldest one where too many are in flight."""
    yield "cut", WINDOW * (ops * costs.cut + edges * costs.cut_edge)
    yield from window
    flight.append(window)
    if len(flight) > AHEAD:
        yield flight.popleft()


def live(kind: str, model: Model, hosts: int, costs: Costs, count: int) -> Generator:
    """So many windows of an ensemble or of mutual learning, a mark after each."""
    flight: deque[Window] = deque()
    ops, edges = (hosts + 2, hosts - 1) if kind == "ensemble" else (2 * hosts, hosts * (hosts - 1))
    for _ in range(count):
        window = (ensemble if kind == "ensemble" else mutual)(model, hosts, FORWARD)
        yield from windows(window, ops, edges, costs, flight)
        yield None


def rounds(model: Model, hosts: int, costs: Costs, count: int, steps: int) -> Generator:
    """So many rounds: a lesson of their own, a publication to every host, the digest, a checkpoint."""
    samples = steps * model.batch
    for _ in range(count):
        yield from lesson(model, hosts, costs, steps, 0)
        spoken = Group()
        published = [Call(host, steps * model.publish, done=spoken) for host in range(hosts)]
        yield from published
        size = samples * model.classes * 4
        heard = [Call(host, 0.0, spoken, hosts, size) for host in range(hosts)]
        yield from heard
        yield heard
        judged = Call(0, 0.0, spoken, hosts, size)
        yield judged
        yield [judged]
        yield from lesson(model, hosts, costs, steps, hosts)
        kept = 12 * model.parameters + hosts * size  # weights, two moments of AdamW, and what was heard
        saved = [Call(host, model.rounds + kept * costs.save) for host in range(hosts)]
        yield from saved
        yield saved
        yield "keep", costs.keep + hosts * (costs.keep_each + kept * costs.sum)
        yield None


def lesson(model: Model, hosts: int, costs: Costs, steps: int, sources: int) -> Generator:
    """A lesson in which nothing crosses; one host has a single stretch of it."""
    begun = [Call(host, 0.0) for host in range(hosts)]
    yield from begun
    yield begun
    if hosts == 1:
        whole = Call(0, steps * model.train, combine=steps * model.hears(sources))
        yield whole
        yield [whole]
        return
    flight: deque[Window] = deque()
    for first in range(0, steps, WINDOW):
        length = min(WINDOW, steps - first)
        combine = length * model.hears(sources)
        yield from windows(
            [Call(host, length * model.train, combine=combine) for host in range(hosts)], 2 * hosts, 0, costs, flight
        )
    yield from flight


def shape(window: Window) -> list[tuple[int, int]]:
    """The calls of a window as hosts, each with how many results it reads."""
    return [(call.host, call.args) for call in window]
