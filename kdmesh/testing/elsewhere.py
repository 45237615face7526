"""Other processes, in which sets of texts have another order and nothing was made yet.

They are started by the first check that asks, serve a whole session of pytest, and end with it.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from typing import IO, Any

import pytest

SEEDS = ("1", "2", "3")
"""Of Python's hashes, one for each process."""
SERVE = "from kdmesh.testing.elsewhere import serve; serve()"


class Elsewhere:
    """The processes of a session of pytest."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._switches: dict[str, str] = {}  # with which they were started: plugins are loaded once

    def ask(self, kit: Any, offer: Any, settings: dict[str, Any]) -> list[Any]:
        """What the method ``there`` of a contract gives in each process.

        AssertionError where the offer cannot be sent, or what it makes raises there.
        """
        import torch

        try:
            sent = pickle.dumps((sys.path, torch.get_num_threads(), *_of(type(kit)), offer, settings))
        except Exception as error:
            raise AssertionError(f"the offer cannot be sent to another process: {error}") from None
        switches = {name: value for name, value in os.environ.items() if name.startswith("KDMESH_")}
        if self._running and switches != self._switches:
            self.close()
        if not self._running:
            self._switches = switches
            self._running = [self._start(seed) for seed in SEEDS]
        try:
            for process in self._running:
                _write(process.stdin, sent)
            answers = [pickle.loads(_read(process.stdout)) for process in self._running]
        except (EOFError, OSError):
            self.close()
            raise AssertionError("the other process ended, which said why on stderr") from None
        for failed, answer in answers:
            assert not failed, f"in another process: {answer}"
        return [answer for _, answer in answers]

    def _start(self, seed: str) -> subprocess.Popen[bytes]:
        there = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=there)

    def close(self) -> None:
        """End them."""
        for process in self._running:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            process.wait()
        self._running = []


KEY = pytest.StashKey[Elsewhere]()


def elsewhere(config: pytest.Config) -> Elsewhere:
    """Those of a session of pytest."""
    if KEY not in config.stash:
        config.stash[KEY] = Elsewhere()
        config.add_cleanup(config.stash[KEY].close)
    return config.stash[KEY]


def _of(test: type) -> tuple[str, str, str, str, dict[str, Any]]:
    """A test class, and, where it cannot be imported, its contract and what it declares."""
    base = next(cls for cls in test.__mro__ if cls.__module__.startswith("kdmesh.testing."))
    declared = {name for cls in base.__mro__ for name in getattr(cls, "__annotations__", {})}
    attributes = {name: getattr(test, name) for name in sorted(declared) if not name.startswith("_")}
    return test.__module__, test.__qualname__, base.__module__, base.__qualname__, attributes


def serve() -> None:
    """Answer, in another process, until nobody asks any more."""
    import torch

    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what plugins print must not get into the answers
    while True:
        try:
            sent = _read(asked)
        except EOFError:
            return
        try:
            path, threads, *test, offer, settings = pickle.loads(sent)
            sys.path[:] = path
            torch.set_num_threads(threads)
            answer = False, _kit(*test).there(offer, settings)
            told = pickle.dumps(answer)
        except BaseException as error:
            told = pickle.dumps((True, f"{type(error).__name__}: {error}"))
        _write(answers, told)


def _kit(module: str, name: str, base_module: str, base: str, attributes: dict[str, Any]) -> Any:
    try:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found()  # type: ignore[operator]  # a class of tests
    except Exception:
        return type(base, (getattr(import_module(base_module), base),), attributes)()


def _write(pipe: IO[bytes] | None, sent: bytes) -> None:
    assert pipe is not None
    pipe.write(struct.pack("<Q", len(sent)) + sent)
    pipe.flush()


def _read(pipe: IO[bytes] | None) -> bytes:
    assert pipe is not None
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    (size,) = struct.unpack("<Q", head)
    found = pipe.read(size)
    if len(found) < size:
        raise EOFError
    return found
