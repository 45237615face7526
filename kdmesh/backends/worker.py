"""What a Ray actor runs: a host, built by `open`, and built anew for the next run.

Ray gets this module by value: it makes the driver's modules importable before anything of kdmesh is unpickled, so it
must import nothing itself but the standard library.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.metadata import PackageNotFoundError, version
from importlib.util import spec_from_loader
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from kdmesh.hosts.source import Source
    from kdmesh.hosts.state import HostConfig


class Worker:
    """A host behind one method, which every call of the driver goes through."""

    def __init__(self, paths: list[str], plugins: dict[str, Any]) -> None:
        """Look for modules where the driver does, in its order; the same ``plugins`` are there once it is met."""
        sys.path[:] = dict.fromkeys([*paths, *sys.path])
        self._plugins: dict[str, Any] | None = plugins
        self.host: Any = None
        self.fence: Any = None

    def meet(self, folder: str, code: dict[str, tuple[str, str, bool]], versions: dict[str, str]) -> str:
        """Stand where the driver stands, and have its code and plugins; returns why this node cannot take part."""
        with suppress(OSError):  # on a machine without that folder, relative paths lead nowhere
            os.chdir(folder)
        Sent.serve(code)
        if self._plugins is not None:
            try:
                from kdmesh.plugins import receive
            except ImportError as error:
                return f"{here()}: {error}"
            mine = {name: installed(name) for name in versions}
            odd = [name for name in versions if mine[name] not in ("", versions[name])]
            if odd:
                return f"{here()} has " + ", ".join(f"{name} {mine[name]}, not {versions[name]}" for name in odd)
            receive(self._plugins)
            self._plugins = None
        return ""

    def open(self, name: str, incarnation: int, config: HostConfig, source: Source) -> None:
        """Build the host; the one before is given up first. An error a user can mend says on which node it is."""
        from kdmesh.backends.sequence import Fence
        from kdmesh.errors import MeshError
        from kdmesh.hosts.host import Host
        from kdmesh.hosts.memory import keep_memory
        from kdmesh.plugins import registry

        self.host, self.fence = None, Fence(name, incarnation)
        keep_memory()
        registry().lend(config.offers)
        try:
            table, streams = source.load(config.plan)
            self.host = Host(name, config, table, streams, registry())
        except MeshError as error:
            error.what += f" ({name}, on {here()})"
            raise

    def ping(self) -> None:
        """Answer, after all calls that came before."""

    def take(self, sent: bytes, *arrived: Any) -> Any:
        """Make the call that an envelope holds; returns results as envelopes: see `envelope.py`."""
        from kdmesh.backends import envelope

        number, method, args, results = envelope.opened(sent, arrived)
        result = self.call(number, method, *args)
        return envelope.result(result) if results == 1 else tuple(map(envelope.result, result))

    def call(self, number: tuple[int, int], method: str, *args: Any) -> Any:
        """Call a method of the host, if this is its next call: see `sequence.py`."""
        with self.fence.admit(number):
            return getattr(self.host, method)(*args)

    def cause(self) -> None:
        """Raise what closed the fence, if a call of this host did."""
        if self.fence.cause is not None:
            raise self.fence.cause


class Filling:
    """What an actor of Ray Data runs: a host with one agent, which answers what the store lacks."""

    def __init__(
        self,
        paths: list[str],
        plugins: dict[str, Any],
        meeting: tuple[Any, ...],
        given: bytes,
    ) -> None:
        """``meeting``: what :meth:`Worker.meet` is given; ``given``: a host's name, config and source, as bytes that
        are read once the modules they are made of are there.
        """
        self._worker, self._meeting, self._given = Worker(paths, plugins), meeting, given
        self._filler: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do pieces of work; of each what was done, or the error it ended with, as bytes."""
        numbers = batch["number"].tolist()
        return {"number": numbers, "done": [self._done(sent) for sent in batch["piece"].tolist()]}

    def _done(self, sent: bytes) -> bytes:
        import pickle

        try:
            if self._filler is None:
                self._open()
            return pickle.dumps(self._filler(pickle.loads(sent)))
        except Exception as error:
            from kdmesh.errors import MeshError, RunFailed

            known = error if isinstance(error, MeshError) else RunFailed(f"{type(error).__name__}: {error} ({here()})")
            return pickle.dumps(known)

    def _open(self) -> None:
        import pickle

        why = self._worker.meet(*self._meeting)
        from kdmesh.errors import MeshError
        from kdmesh.hosts.filling import Filler

        if why:
            raise MeshError(why, where="--ray-address", instead="the same kdmesh and torch on every node and here")
        name, config, source = pickle.loads(self._given)
        self._worker.open(name, 0, config, source)
        self._filler = Filler(self._worker.host)


class Sent(MetaPathFinder, InspectLoader):
    """Imports modules from the text that the driver sent, whatever this node may have under their names."""

    def __init__(self) -> None:
        self.code: dict[str, tuple[str, str, bool]] = {}

    @classmethod
    def serve(cls, code: dict[str, tuple[str, str, bool]]) -> None:
        """Find these modules from now on: file, text, and whether it is a package, by name."""
        finder = next((one for one in sys.meta_path if isinstance(one, cls)), None)
        if finder is None:
            sys.meta_path.insert(0, finder := cls())
        finder.code.update(code)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a module that was sent."""
        if name not in self.code:
            return None
        file, _, package = self.code[name]
        spec = spec_from_loader(name, self, origin=file, is_package=package)
        if spec is not None:
            spec.has_location = bool(file)
        return spec

    def get_source(self, name: str) -> str:
        """The text, also for tracebacks."""
        return self.code[name][1]

    def exec_module(self, module: ModuleType) -> None:
        """Run the text."""
        file, text, _ = self.code[module.__name__]
        exec(compile(text, file or module.__name__, "exec"), module.__dict__)


def installed(name: str) -> str:
    """A package's version without what its build is called; nothing where it is not installed."""
    with suppress(PackageNotFoundError):
        return version(name).partition("+")[0]
    return ""


def here() -> str:
    """This node, in words."""
    return f"the node {socket.gethostname()}"
