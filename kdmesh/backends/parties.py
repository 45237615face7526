"""Hosts in the processes of parties: each is asked over a link of its own; the coordinator's host lives here.

A party is sent plain values and gives plain values (:mod:`kdmesh.backends.wire`), which both ends check
(:mod:`kdmesh.backends.calls`). What it publishes stays with it until another host needs it.
"""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as settled
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, cast

from kdmesh.backends._base import Backend, Handle, T, T_co
from kdmesh.backends.calls import STAYS, Calls, Unlike
from kdmesh.backends.wire import pack, unpack
from kdmesh.errors import HostLost, RunFailed
from kdmesh.graph.participation import awaited
from kdmesh.hosts.host import Host
from kdmesh.plugins import registry
from kdmesh.spec.parties import COORDINATOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.remote import Method
    from kdmesh.hosts.source import Source
    from kdmesh.hosts.state import HostConfig


class Link(Protocol):
    """A connection to a party. Several threads may ask at a time."""

    def ask(self, message: bytes) -> bytes:
        """Send a message and return the answer to it. HostLost where none comes."""


class Meeting(Protocol):
    """Where parties come together."""

    def links(self, names: Iterable[str], least: int | None = None) -> Mapping[str, Link]:
        """The connections of these parties. Waits until all are there, or at least so many; HostLost names who does not
        come.
        """

    def here(self, names: Iterable[str]) -> Mapping[str, Link]:
        """The connections of those of these parties who are there now."""

    def sizes(self) -> dict[str, int]:
        """By party, how many samples it has of its own."""


class Later(Handle[T_co], Generic[T_co]):
    """A call's result, and the host that has it. ``about``: its arguments; ``part``: which of several results."""

    def __init__(
        self, future: Future[Any], host: str, number: int, method: str, about: tuple[Any, ...], part: int | None = None
    ) -> None:
        self.future, self.host, self.number, self.part = future, host, number, part
        self.method, self.about = method, about
        self.lock, self.fetched = threading.Lock(), None

    def value(self) -> Any:
        """The result, or its part, once it is there."""
        found = self.future.result()
        return found if self.part is None else found[self.part]


class PartiesBackend(Backend):
    """Calls of one host run in their order, in a thread of its own; those of several hosts at the same time."""

    name = "parties"
    away = True

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting
        self.incarnation = 0
        self.links: dict[str, Link] = {}
        self.local: dict[str, Host] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._numbers: dict[str, int] = {}
        self._over: dict[str, list[int]] = {}  # by party, whose results nobody can ask for any more
        self._causes: dict[str, BaseException] = {}  # by host, what its first call that failed ended with
        self._given: tuple[HostConfig, Source] | None = None
        self._unopened: frozenset[str] = frozenset()

    @property
    def unopened(self) -> frozenset[str]:
        """Parties that were not there as all others were opened."""
        return self._unopened

    @property
    def near(self) -> bool:
        """A party's files are its own."""
        return False

    def open(self, config: HostConfig, source: Source) -> None:
        """Build the coordinator's host here, and have every party build its own."""
        plan, self._given = config.plan, (config, source)
        table, streams = source.load(plan)
        first = not self.incarnation
        self._end()
        self.incarnation += 1
        self.calls = Calls(plan, streams, config.shapes, config.statistics, plan.answers.outputs(table))
        names, asked = [name for name in plan.hosts if name != COORDINATOR], plan.spec.participation
        least = None if asked is None or (first and awaited(plan)) else asked.quorum
        self.links = dict(self.meeting.links(names, least))
        self._unopened = frozenset(names) - frozenset(self.links)
        self.absent, names = self._unopened, [name for name in names if name in self.links]
        self._threads = {name: ThreadPoolExecutor(1, f"kdmesh-{name}") for name in plan.hosts}
        self._numbers = dict.fromkeys(plan.hosts, 0)
        self._causes = {}
        self._over = {name: list[int]() for name in names}
        told = {"open": self.incarnation, "seed": plan.spec.seed, "sizes": self.meeting.sizes()}
        opened = {name: self._threads[name].submit(self._answer, name, self.incarnation, told) for name in names}
        if COORDINATOR in plan.hosts:
            self.local = {COORDINATOR: Host(COORDINATOR, config, table, streams, registry())}
        for future in opened.values():
            future.result()

    def call(self, host: str, method: Method, *args: Any, results: int = 1) -> Any:
        """Put a call behind those that its host has."""
        self._numbers[host] += 1
        number = self._numbers[host]
        future = self._threads[host].submit(self._admitted, host, self.incarnation, number, method, args)
        if results == 1:
            made = Later[Any](future, host, number, method, args)
            if method in STAYS and host in self.links:
                weakref.finalize(made, self._over[host].append, number).atexit = False
            return made
        return [Later(future, host, number, method, args, part) for part in range(results)]

    def _admitted(self, host: str, incarnation: int, number: int, method: str, args: tuple[Any, ...]) -> Any:
        """Make a call, unless one before it failed, of which this then says why: nobody may have asked for that one."""
        causes = self._causes  # of this incarnation
        if (cause := causes.get(host)) is not None:
            raise cause
        try:
            return (self._here if host in self.local else self._there)(host, incarnation, number, method, args)
        except BaseException as error:
            causes[host] = error
            raise

    def _here(self, host: str, incarnation: int, number: int, method: str, args: tuple[Any, ...]) -> Any:
        return getattr(self.local[host], method)(*(self._arrived(arg, incarnation) for arg in args))

    def _there(self, host: str, incarnation: int, number: int, method: str, args: tuple[Any, ...]) -> Any:
        """Ask a party. Of a result that stays with it comes nothing yet."""
        places = {}
        given = []
        for place, arg in enumerate(args):
            if isinstance(arg, Later) and arg.host == host and arg.method in STAYS:
                arg.future.result()
                places[place], arg = arg.number, None
            given.append(self._arrived(arg, incarnation))
        if method == "run":
            given = given[:1]  # bundles of others, of whom it reads none
        sent = self.calls.arguments(method, given)
        over = [one for one in [*self._over[host]] if one < number]
        for one in over:
            self._over[host].remove(one)
        call = {"call": number, "method": method, "args": sent, "stay": places, "drop": over}
        value = self._answer(host, incarnation, call)
        if method in STAYS:
            return {}
        if method == "run":
            return {}, self.calls.result(method, value, host=host)
        return self.calls.result(method, value, host=host)

    def _arrived(self, arg: Any, incarnation: int) -> Any:
        """An argument's value, which is fetched where it stayed with a party; once for all who need it."""
        if not isinstance(arg, Later):
            return arg
        found = arg.value()
        if arg.host not in self.links or arg.method not in STAYS:
            return found
        with arg.lock:
            if arg.fetched is None:
                value = self._answer(arg.host, incarnation, {"fetch": arg.number})
                arg.fetched = self.calls.result(arg.method, value, arg.about, arg.host)
        return arg.fetched

    def _answer(self, host: str, incarnation: int, message: dict[str, Any]) -> Any:
        """What a party answers. RunFailed where it says that it refuses, or failed.

        ``incarnation``: of the hosts that were called, so that what waited for a lost one asks nothing of the next.
        """
        answer = unpack(self.links[host].ask(pack({"incarnation": incarnation, **message})))
        if not isinstance(answer, dict) or len(answer) != 1:
            raise Unlike(f"{host} gave something else than an answer")
        if "value" in answer:
            return answer["value"]
        why = next(iter(answer.values()))
        refuses = "refused" in answer
        doing = message.get("method") or next(iter(message))
        what = f"{host} {'refuses' if refuses else 'failed'} ({doing}): {why if isinstance(why, str) else ''!s:.400}"
        raise RunFailed(what, where=f"parties.{host}", instead=f"see what {host} has written down")

    def known(self, value: Any) -> Any:
        """A result that is there."""
        future = Future[Any]()
        future.set_result(value)
        return Later[Any](future, "", 0, "", ())

    def willing(self, hosts: Sequence[str], number: int) -> list[str]:
        """Who of these is there, and does not decline the round."""
        found = []
        for name, link in self.meeting.here(hosts).items():
            try:
                answer = unpack(link.ask(pack({"incarnation": 0, "round": number})))
            except HostLost:
                continue
            if isinstance(answer, dict) and answer.get("value") is True:
                found.append(name)
        return found

    def get(self, handles: Sequence[Handle[T]]) -> list[T]:
        """Wait for results; of what stays with a party nothing comes here."""
        return [cast("Later[T]", handle).value() for handle in handles]

    def wait_any(self, handles: Sequence[Handle[object]]) -> int:
        """Wait for the first."""
        futures = [cast("Later[Any]", handle).future for handle in handles]
        settled(futures, return_when=FIRST_COMPLETED)
        return next(number for number, future in enumerate(futures) if future.done())

    def rebuild(self, plan: Plan) -> None:
        """After a loss: wait for who was lost, and have all begin anew."""
        assert self._given is not None
        config, source = self._given
        self.open(replace(config, plan=plan), source)

    def lost(self) -> list[str]:
        """Who does not answer any more."""
        found = []
        for name, link in self.links.items():
            try:
                link.ask(pack({"incarnation": self.incarnation, "there": True}))
            except HostLost:
                found.append(name)
        return found

    def _end(self) -> None:
        """Let nothing of the hosts before begin any more."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        self._threads, self.local = {}, {}

    def close(self) -> None:
        """Give all up; parties are told that the run is over."""
        self._end()
        self.links = {}
