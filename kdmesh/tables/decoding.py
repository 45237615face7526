"""A process that decodes images: it reads which as lines of JSON, and writes their pixels.

Started by :class:`Decoders`. It imports no torch, and ends with what it reads from: when its asker is gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kdmesh.errors import RunFailed
from kdmesh.tables.archive import Archive, open_archive
from kdmesh.tables.images import Form, Unreadable, read_image
from kdmesh.tables.unchanged import Changed

if TYPE_CHECKING:
    from collections.abc import Sequence

    Named = tuple[int, str]  # an archive by its number, and the name of an image in it


END = "end"
"""What is asked of a process last."""


class Setting(NamedTuple):
    """What all images of a set have in common: where they are, how they become samples, and of which shape."""

    archives: list[Archive]
    form: Form
    shape: tuple[int, ...]


class Refused(NamedTuple):
    """Why an image makes no sample, ``number``: which of those that were asked for."""

    number: int
    what: str
    instead: str


def decoded(setting: Setting, names: Sequence[Named]) -> np.ndarray[Any, Any] | Refused:
    """The pixels ``[n, channels, height, width]`` uint8 of images."""
    found = np.empty((len(names), *setting.shape), dtype=np.uint8)
    for number, (archive, name) in enumerate(names):
        try:
            found[number] = read_image(setting.archives[archive], name, setting.form, setting.shape)
        except Unreadable as error:
            return Refused(number, error.what, error.instead)
    return found


class Decoders:
    """Processes that decode images side by side. They are started when first asked."""

    def __init__(self, setting: Setting, count: int) -> None:
        self._setting, self.count = setting, count
        self._threads = ThreadPoolExecutor(count, "kdmesh-decoding")
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._made: list[subprocess.Popen[bytes]] = []

    def ask(self, names: Sequence[Named]) -> list[Future[np.ndarray[Any, Any] | Refused]]:
        """Have images decoded, a share of them by each process."""
        while len(self._made) < self.count:
            self._made.append(self._started())
            self._idle.put(self._made[-1])
        share = -(-len(names) // self.count)
        return [self._threads.submit(self._asked, names[at : at + share]) for at in range(0, len(names), share)]

    def close(self) -> None:
        """End the processes: they are told to, since a pipe ends with the last process that has it, perhaps a fork."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for one in self._made:
            if one.stdin is not None:
                with suppress(OSError):  # of one that has ended already
                    _write(one.stdin, END)
                with suppress(OSError):
                    one.stdin.close()
            one.wait()
            if one.stdout is not None:
                one.stdout.close()

    def _started(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(one or os.getcwd() for one in sys.path)
        one = subprocess.Popen(
            [sys.executable, "-P", "-m", "kdmesh.tables.decoding"],  # no module of the working folder comes first
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        archives, form, shape = self._setting
        _write(one.stdin, {"archives": [archive.told() for archive in archives], "form": form, "shape": shape})
        return one

    def _asked(self, names: Sequence[Named]) -> np.ndarray[Any, Any] | Refused:
        """In a thread: ask a process that has nothing to do. RunFailed where it has ended."""
        one = self._idle.get()
        try:
            return self._answer(one, names)
        except (OSError, EOFError):
            what = f"a process that decodes images has ended, with exit code {one.wait()}"
            instead = "the same again; with fewer `workers`, where the system has ended it for want of memory"
            raise RunFailed(what, where="data.dataset.images.workers", instead=instead) from None
        finally:
            self._idle.put(one)

    def _answer(self, one: subprocess.Popen[bytes], names: Sequence[Named]) -> np.ndarray[Any, Any] | Refused:
        """What a process says. OSError or EOFError where there is none at the other end."""
        _write(one.stdin, names)
        assert one.stdout is not None
        if not (line := one.stdout.readline()):
            raise EOFError
        head = json.loads(line)
        if "changed" in head:
            raise Changed(**head["changed"])
        if "refused" in head:
            return Refused(*head["refused"])
        found = np.empty((len(names), *self._setting.shape), dtype=np.uint8)
        view, done = memoryview(found.data).cast("B"), 0
        while done < len(view):
            if not (count := one.stdout.readinto(view[done:])):  # type: ignore[attr-defined]  # it is buffered
                raise EOFError
            done += count
        return found


def _archive_of(told: dict[str, str]) -> Archive:
    """An archive as another process has told it."""
    if "split" in told:
        from kdmesh.tables.arrow import Arrow

        return Arrow.of(told)
    return open_archive(Path(told["path"]), told["where"])


def _write(file: Any, message: Any) -> None:
    file.write(json.dumps(message).encode() + b"\n")
    file.flush()


def main() -> None:
    """Serve until there is no more to read."""
    answers, asked = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides
    first = json.loads(asked.readline())
    resize, mode = first["form"]
    form = Form(tuple(resize) if resize else None, mode)
    setting = Setting([_archive_of(told) for told in first["archives"]], form, tuple(first["shape"]))
    for line in asked:
        if (names := json.loads(line)) == END:
            return
        try:
            found = decoded(setting, names)
        except Changed as error:
            _write(answers, {"changed": {"what": error.what, "where": error.where, "instead": error.instead}})
            continue
        if isinstance(found, Refused):
            _write(answers, {"refused": found})
            continue
        answers.write(b"{}\n")
        answers.write(memoryview(found.data).cast("B"))
        answers.flush()


if __name__ == "__main__":
    main()
