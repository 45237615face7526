"""The interface of a backend: it holds hosts and calls their methods in order. The engine knows nothing else of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.graph.resources import Resources
    from kdmesh.hosts.remote import Method
    from kdmesh.hosts.source import Source
    from kdmesh.hosts.state import HostConfig


class Backend(ABC):
    """Calls on one host run one at a time, in the order in which they were submitted.

    A *handle* stands for a result that may not be there yet. Handles may be passed as arguments of further calls, to
    any host; the driver reads only small results.
    """

    name: str

    def resources(self) -> Resources | None:
        """What hosts may take of a cluster; None: what this machine has."""
        return None

    @abstractmethod
    def open(self, config: HostConfig, source: Source) -> None:
        """Build every host of the plan; those of the run before are given up."""

    @abstractmethod
    def call(self, host: str, method: Method, *args: Any, results: int = 1) -> Any:
        """Submit a call of a method of :class:`~kdmesh.hosts.remote.RemoteHost`, which may take handles as arguments.

        Returns a handle, or a list of handles where the method returns a tuple of several ``results``.
        """

    @abstractmethod
    def get(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for handles and return their values. Raises what the host raised."""

    @abstractmethod
    def wait_any(self, handles: Sequence[Any]) -> int:
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
