"""What a Ray actor runs: a host, built by `open`, and built anew for the next run.

Ray gets this class by value: it makes the driver's modules importable before anything of kdmesh is unpickled, so it
must import nothing itself but the standard library.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdmesh.agents.host import Blueprint
    from kdmesh.agents.source import Source


class Worker:
    """A host behind two methods, so that one call and several results look alike."""

    def __init__(self, paths: list[str], plugins: dict[str, Any]) -> None:
        """Look for modules where the driver does, in its order, and have the same plugins."""
        sys.path[:] = dict.fromkeys([*paths, *sys.path])
        from kdmesh.plugins import receive

        receive(plugins)
        self.host: Any = None

    def open(self, name: str, blueprint: Blueprint, source: Source) -> None:
        """Build the host; the one before is given up first."""
        from kdmesh.agents.host import Host
        from kdmesh.agents.memory import keep_memory
        from kdmesh.plugins import registry

        self.host = None
        keep_memory()
        table, streams = source.load(blueprint.plan)
        self.host = Host(name, blueprint, table, streams, registry())

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the host."""
        return getattr(self.host, method)(*args)
