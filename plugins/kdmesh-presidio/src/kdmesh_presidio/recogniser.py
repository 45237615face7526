"""What presidio finds, asked in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from kdmesh.errors import MeshError
from kdmesh.recognisers import Entity, Recogniser

from kdmesh_presidio.plugin import NAMES

PYTHON = "KDMESH_PRESIDIO_PYTHON"
"""The environment's variable that names the Python which has presidio, where that is another one than this."""
AT_ONCE = 32  # texts that a process is given at a time
TELLS, AFTER = 10.0, 15.0  # seconds between lines of progress, and until the first


class Presidio(Recogniser):
    """`workers` processes with presidio, begun when texts are first looked at. A text is looked at by itself.

    ``say``: is told how far it is, of texts that take long.
    """

    def __init__(self, *, workers: int = 1, **settings: Any) -> None:
        """``settings``: of :class:`kdmesh_presidio.plugin.ModelConfig`."""
        self._workers, self._settings = workers, settings
        self._idle: SimpleQueue[Worker] | None = None
        self.say = _to_stderr

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere it begins processes of its own."""
        return _made, (self._workers, self._settings)

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """What each text holds."""
        if not any(texts):
            return [[] for _ in texts]
        idle = self._begun()
        parts = [list(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)]
        found: list[list[Entity]] = []
        begun = told = time.monotonic()
        with ThreadPoolExecutor(self._workers) as pool:
            for part in pool.map(lambda one: _asked(idle, one), parts):
                found += part
                now = time.monotonic()
                if now - begun > AFTER and now - told > TELLS:
                    told = now
                    self.say(f"presidio: {len(found):,} of {len(texts):,} texts")
        return found

    def _begun(self) -> SimpleQueue[Worker]:
        if self._idle is None:
            idle: SimpleQueue[Worker] = SimpleQueue()
            for worker in [Worker(self._settings) for _ in range(self._workers)]:
                worker.ready()
                idle.put(worker)
            self._idle = idle
        return self._idle


def _made(workers: int, settings: dict[str, Any]) -> Presidio:
    return Presidio(workers=workers, **settings)


def _asked(idle: SimpleQueue[Worker], texts: list[str]) -> list[list[Entity]]:
    worker = idle.get()
    try:
        return worker.ask(texts)
    finally:
        idle.put(worker)


class Worker:
    """A process that answers a line with a line. It ends with this object, and with this process."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._python = os.environ.get(PYTHON) or sys.executable
        command = [self._python, str(Path(__file__).with_name("worker.py")), json.dumps(settings)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
            )
        except OSError as error:
            what = f"{self._python} cannot be begun: {error.strerror}"
            raise MeshError(what, where=PYTHON, instead="the Python of an environment with presidio-analyzer") from None
        self._lock = threading.Lock()
        weakref.finalize(self, _end, self._process)

    def ready(self) -> None:
        """Wait until presidio is there. MeshError where it is not."""
        try:
            told = json.loads(self._line())
        except (RuntimeError, ValueError) as error:
            told = {"error": str(error)}
        if "ready" not in told:
            what = f"presidio cannot be used by {self._python}: {told.get('error')}"
            instead = f"pip install 'kdmesh-presidio[presidio]' and the spaCy model, there or where {PYTHON} points"
            raise MeshError(what, instead=instead)

    def ask(self, texts: list[str]) -> list[list[Entity]]:
        """What the texts hold."""
        with self._lock:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(texts) + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                raise RuntimeError(self._ended()) from None
            found = json.loads(self._line())
        return [[Entity(start, end, NAMES.get(kind, kind)) for start, end, kind in each] for each in found]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self._ended())
        return line

    def _ended(self) -> str:
        return f"the process with presidio ended, with code {self._process.wait()}"


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # of a process that has ended nothing is taken any more
                stream.close()
    process.wait()


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
