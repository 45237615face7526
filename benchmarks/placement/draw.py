"""What the driver submits for one step, window or round: as `kdmesh/engine` does, host by host."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

from benchmarks.placement import meshes as flow
from benchmarks.placement.sim import Call, Costs, Group, all_of
from benchmarks.placement.work import BATCH, Work
from kdmesh.engine.teach import AHEAD, WINDOW

SENDS = BATCH * flow.CLASSES * 4  # bytes of a batch's logits

Window = list[Call]


def ensemble(work: Work, hosts: int) -> Window:
    """Frozen teachers, each on a host, and a student: a call each for a window, one more for its first forward."""
    published, student = Group(), hosts - 1
    calls = [Call(host, work.alone["main"], done=published) for host in range(student)]
    combine = work.more_of("last", hosts)
    learn = Call(student, work.alone["last"], published, hosts - 1, WINDOW * SENDS, combine)
    return [*calls, Call(student, work.alone["first"]), learn]


def mutual(work: Work, hosts: int) -> Window:
    """Peers, each on a host: between two exchanges an update and the next forward."""
    calls, before = [], None
    for turn, what in enumerate(("first", *["between"] * (WINDOW - 1), "last")):
        published, args, combine = Group(), 0 if before is None else hosts - 1, work.more_of(what, hosts)
        took = [work.of(what, host, turn) for host in range(hosts)]
        calls += [Call(host, took[host], before, args, SENDS, combine, done=published) for host in range(hosts)]
        before = published
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


def live(kind: str, work: Work, hosts: int, costs: Costs, count: int) -> Generator:
    """So many windows of an ensemble or of mutual learning, a mark when each is done."""
    flight: deque[Window] = deque()
    ops, edges = (hosts + 2, hosts - 1) if kind == "ensemble" else (2 * hosts, hosts * (hosts - 1))
    for _ in range(count):
        window = (ensemble if kind == "ensemble" else mutual)(work, hosts)
        yield from windows(window, ops, edges, costs, flight)
        yield all_of(window)


def rounds(work: Work, hosts: int, costs: Costs, steps: int) -> Generator:
    """A round: a phase of their own, a publication to every host, the digest, a checkpoint. It ends with a mark.

    A checkpoint holds what every host heard of all others, and the driver sums it. From one phase to the next, the
    driver turns.
    """
    turn = "turn", work.alone["turn"] + work.more_of("turn", hosts)
    yield from phase("own", work, hosts, costs, steps, 0)
    yield turn
    published, size = Group(), steps * SENDS
    yield from [Call(host, work.of("publish", host, 1), done=published) for host in range(hosts)]
    heard = [
        Call(host, work.alone["receive"], published, hosts, size, work.more_of("receive", hosts))
        for host in range(hosts)
    ]
    yield from heard
    yield heard
    yield turn
    judged = Call(
        0, work.alone["evaluate_consensus"], published, hosts, size, work.more_of("evaluate_consensus", hosts)
    )
    yield judged
    yield [judged]
    yield turn
    yield from phase("digest", work, hosts, costs, steps, 2)
    yield turn
    saved = [Call(host, work.of("save", host, 3), combine=work.more_of("save", hosts)) for host in range(hosts)]
    yield from saved
    yield saved
    yield "keep", work.alone["keep"] + work.more_of("keep", hosts) + hosts * (hosts - 1) * size * costs.sum
    yield None


def phase(key: str, work: Work, hosts: int, costs: Costs, steps: int, turn: int) -> Generator:
    """A phase in which nothing crosses, in windows."""
    begun = [Call(host, work.alone["begin"]) for host in range(hosts)]
    yield from begun
    yield begun
    flight: deque[Window] = deque()
    for _ in range(0, steps, WINDOW):
        combine = work.more_of(key, hosts)
        window = [Call(host, work.of(key, host, turn), combine=combine) for host in range(hosts)]
        yield from windows(window, 2 * hosts, 0, costs, flight)
    yield from flight


def shape(window: Window) -> list[tuple[int, int]]:
    """The calls of a window as hosts, each with how many results it reads."""
    return [(call.host, call.args) for call in window]
