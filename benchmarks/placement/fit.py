"""Costs of the simulation, from what was probed: some are read off, some fitted to what an exchange takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from benchmarks.placement.probe import ARGS, BIG, FEW, MANY, SMALL
from benchmarks.placement.sim import BUSY, Call, Costs, Group, Mesh, Wakes
from benchmarks.placement.work import HOSTS


def fit(probed: Callable[[Any], Any], cores: int) -> Costs:
    """``probed``: what a probe gave in the middle, by the names of `Actors.ways`."""
    plain, with_args, (cut_op, cut_edge), summed = probed("plain"), probed("args"), probed("cut"), probed("sum")
    arg = [max(0.0, (b - a) / ARGS) for a, b in zip(plain, with_args, strict=True)]
    wait, wait_each = line(FEW, probed(("wait", FEW)), MANY, probed(("wait", MANY)))
    known = Costs(
        submit=plain[0], submit_arg=arg[0], io=plain[1], io_arg=arg[1], call=plain[2], arg=arg[2],
        wait=wait, wait_each=wait_each, cut=cut_op, cut_edge=cut_edge,
        sum=summed, hop=0.0, answer=0.0, pushed=flat(0.0), wake=flat(0.0), byte=0.0,
    )  # fmt: skip
    least = probed(("level", HOSTS[0], BUSY[0]))
    known = replace(known, hop=fitted(lambda hop: simulated(replace(known, hop=hop), SMALL, cores), least))
    trip = probed(("trip", HOSTS[0], BUSY[0]))
    known = replace(known, answer=fitted(lambda answer: tripped(replace(known, answer=answer), cores), trip))
    big = probed("big")
    byte = fitted(lambda byte: simulated(replace(known, byte=byte), BIG, cores), big / BIG, big)
    known = replace(known, byte=byte)

    def late(probe: str, took: Callable[[Wakes, int, float], float]) -> Wakes:
        """The delays with which simulated calls take as long as the probed ones."""
        return tuple(
            tuple(
                fitted(lambda more, of=(hosts, busy): took(flat(more), *of), probed((probe, hosts, busy)))
                for busy in BUSY
            )
            for hosts in HOSTS
        )

    return replace(
        known,
        wake=late("level", lambda more, *of: simulated(replace(known, wake=more), SMALL, cores, *of)),
        pushed=late("trip", lambda more, *of: tripped(replace(known, pushed=more), cores, *of)),
    )


def flat(delay: float) -> Wakes:
    """The same delay everywhere."""
    return ((delay,) * len(BUSY),) * len(HOSTS)


def line(few: int, first: float, many: int, second: float) -> tuple[float, float]:
    """What a thing costs at all, and each of its parts."""
    each = max(0.0, (second - first) / (many - few))
    return max(0.0, first - few * each), each


def fitted(level: Callable[[float], float], seconds: float, target: float | None = None) -> float:
    """The cost, at most ``seconds``, with which a simulated level takes as long as the real one (``target``)."""
    low, high = 0.0, seconds
    for _ in range(20):
        middle = (low + high) / 2
        longer = level(middle) > (seconds if target is None else target)
        low, high = (low, middle) if longer else (middle, high)
    return (low + high) / 2


def simulated(known: Costs, size: int, cores: int, hosts: int = 2, busy: float = 0.0, levels: int = 30) -> float:
    """Seconds of a level of the exchange."""

    def driver() -> Iterator[Call | list[Call]]:
        before = None
        for _ in range(levels):
            given, args = Group(), 0 if before is None else hosts - 1
            calls = [Call(host, busy, before, args, size, done=given) for host in range(hosts)]
            yield from calls
            before = given
        yield calls

    mesh = Mesh(known, hosts, cores)
    mesh.run(driver())
    return mesh.cores.now / levels


def tripped(known: Costs, cores: int, hosts: int = 2, busy: float = 0.0, trips: int = 10) -> float:
    """Seconds of a call to each of the hosts that the driver waits for."""

    def driver() -> Iterator[Call | list[Call]]:
        for _ in range(trips):
            calls = [Call(host, busy) for host in range(hosts)]
            yield from calls
            yield calls

    mesh = Mesh(known, hosts, cores)
    mesh.run(driver())
    return mesh.cores.now / trips
