"""Everything in this process, one call after the other: for debugging, tests, and small meshes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from kdmesh.backends._base import Backend, Handle, T, T_co
from kdmesh.hosts.host import Host
from kdmesh.hosts.state import HostConfig
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.hosts.remote import Method
    from kdmesh.hosts.source import Source


class InlineBackend(Backend):
    """Calls run at once; a handle is the value itself, boxed."""

    name = "inline"
    here = True

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}

    def open(self, config: HostConfig, source: Source) -> None:
        """Build the hosts, which share one copy of the data."""
        table, streams = source.load(config.plan)
        known = registry()
        self.hosts = {name: Host(name, config, table, streams, known, read=source.read) for name in config.plan.hosts}

    def call(self, host: str, method: Method, *args: Any, results: int = 1) -> Any:
        """Run the call."""
        value = getattr(self.hosts[host], method)(*(arg.value if isinstance(arg, Done) else arg for arg in args))
        return Done(value) if results == 1 else [Done(part) for part in value]

    def known(self, value: Any) -> Any:
        """Box it."""
        return Done(value)

    def get(self, handles: Sequence[Handle[T]]) -> list[T]:
        """Unbox."""
        return [cast("Done[T]", handle).value for handle in handles]

    def wait_any(self, handles: Sequence[Handle[object]]) -> int:
        """Everything is there already."""
        return 0

    def close(self) -> None:
        """Forget the hosts."""
        self.hosts = {}


class Done(Handle[T_co]):
    """A handle of a call that has run."""

    __slots__ = ("value",)

    def __init__(self, value: T_co) -> None:
        self.value = value
