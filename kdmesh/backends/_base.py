"""The interface of a backend: it holds hosts and calls their methods in order. The engine knows nothing else of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, cast

from kdmesh.backends.absent import nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.graph.resources import Resources
    from kdmesh.hosts.remote import Method, RemoteHost
    from kdmesh.hosts.source import Source
    from kdmesh.hosts.state import HostConfig


P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)


class Handle(Generic[T_co]):
    """Stands for the result of a call, of type ``T_co``, which may not be there yet.

    Every backend has a class of its own for it, and only :meth:`Backend.get` reads one. The type parameter is for type
    checkers: a handle of Ray is an ``ObjectRef`` and does not inherit from this class.
    """


def as_argument(handle: Handle[T]) -> T:
    """A handle in the place of an argument of a further call, on any host: the method is called with its value.

    Returns the handle itself. Its static type is that of the value, which is what the method's parameter declares.
    """
    return cast("T", handle)


Work: TypeAlias = "Generator[Sequence[Handle[object]], Any, T]"
"""A coroutine that returns a ``T``, as a generator: it yields handles and is sent their values by whoever runs it."""


def wait(handles: Iterable[Handle[T]]) -> Work[list[T]]:
    """``values = yield from wait(handles)`` in a :data:`Work`: the results, in the order of the handles.

    Others run meanwhile. Whoever runs the work raises what a host raised.
    """
    values: list[T] = yield list(handles)
    return values


class Backend(ABC):
    """Calls on one host run one at a time, in the order in which they were submitted.

    Each is submitted with :meth:`submit` and returns a :class:`Handle`, which may be passed to further calls
    (:func:`as_argument`); the driver reads only small results.
    """

    name: str
    away = False  # whether hosts may be on other machines than this one
    here = False  # whether they are in this process, and so have what it has read
    absent: frozenset[str] = frozenset()
    """Hosts that do not take part now: calls of them do nothing (:mod:`kdmesh.backends.absent`)."""

    def resources(self) -> Resources | None:
        """What hosts may take of a cluster; None: what this machine has."""
        return None

    @property
    def near(self) -> bool:
        """Whether all hosts are on this machine, and see its files."""
        return True

    @abstractmethod
    def open(self, config: HostConfig, source: Source) -> None:
        """Build every host of the plan; those of the run before are given up."""

    def submit(
        self, host: str, method: Callable[Concatenate[RemoteHost, P], T], *args: P.args, **options: P.kwargs
    ) -> Handle[T]:
        """Submit a call, as in ``submit("host0", RemoteHost.evaluate, "small", "test")``.

        Type checkers know arguments and result by the method. Arguments are given by position: TypeError otherwise.
        """
        name = _name(method, options)
        if host in self.absent:
            return cast("Handle[T]", self.known(nothing(host, name)))
        return cast("Handle[T]", self.call(host, name, *args))

    def submit_pair(
        self, host: str, method: Callable[Concatenate[RemoteHost, P], tuple[T, U]], *args: P.args, **options: P.kwargs
    ) -> tuple[Handle[T], Handle[U]]:
        """Submit a call of a method that returns two values, with a handle for each."""
        name = _name(method, options)
        if host in self.absent:
            first, second = map(self.known, nothing(host, name))
        else:
            first, second = self.call(host, name, *args, results=2)
        return first, second

    @abstractmethod
    def call(self, host: str, method: Method, *args: Any, results: int = 1) -> Any:
        """What a backend implements for :meth:`submit`: submit a call of the method of this name.

        Returns a handle, or a list of handles where the method returns a tuple of several ``results``.
        """

    @abstractmethod
    def known(self, value: Any) -> Any:
        """A handle of a value that is there."""

    def willing(self, hosts: Sequence[str], number: int) -> list[str]:
        """Who of these takes part in a round; those that are not there, or decline, do not."""
        return list(hosts)

    @property
    def unopened(self) -> frozenset[str]:
        """Hosts that were not there when all were opened; they are, once all are opened anew."""
        return frozenset()

    @abstractmethod
    def get(self, handles: Sequence[Handle[T]]) -> list[T]:
        """Wait for handles and return their values. Raises what the host raised."""

    @abstractmethod
    def wait_any(self, handles: Sequence[Handle[object]]) -> int:
        """Wait until at least one of the handles is there, and return its index (the first such one)."""

    def lost(self) -> list[str]:
        """After :class:`HostLost`: the hosts that do not answer, once the others are through with what was queued."""
        return []

    def rebuild(self, plan: Plan) -> None:
        """After :class:`HostLost`: give all hosts up, and build those of a plan as `open` did. May raise it again."""
        raise NotImplementedError(f"the backend {self.name} cannot lose a host")

    @abstractmethod
    def close(self) -> None:
        """Give every host up. Closing twice is harmless."""


def _name(method: Callable[..., object], options: dict[str, Any]) -> Method:
    """The name of a method of RemoteHost. TypeError where arguments were given by keyword: calls carry positions."""
    if options:
        raise TypeError(f"{method.__name__}: give {', '.join(options)} by position")
    return cast("Method", method.__name__)
