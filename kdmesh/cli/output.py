"""What a command prints never ends it: streams that are full, closed or cannot spell a letter lose words, not work."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from kdmesh.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Steady:
    """A text stream that goes on after it has failed, in silence. ``failed``: why, the first time.

    What its encoding lacks is written as an escape. Anything else is the stream's own.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.failed: OSError | None = None
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._fail(error)
        except UnicodeError:
            return self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each, if that is possible."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, if that is possible."""
        try:
            self.stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Note why, and send what is still to come, also what Python flushes as it exits, nowhere."""
        self.failed = self.failed or error
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def steady() -> Iterator[Steady]:
    """Make both of Python's streams steady inside; yields the one for output. A stream that is closed leads nowhere."""
    before = sys.stdout, sys.stderr
    if None in before:  # what is opened next takes their numbers: not a file of the run
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
    out, err = (Steady(stream or open(os.devnull, "w", encoding="utf-8")) for stream in before)  # noqa: SIM115
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def say(text: str) -> None:
    """Print a sentence in lines that fit: as wide as the terminal, elsewhere 80 cells."""
    from kdmesh.report import layout

    print("\n".join(layout.wrap(text, layout.terminal_width(), "  ")))


def complain(text: str) -> None:
    """Print an error, or a note; on a terminal, in lines that fit it.

    Elsewhere a line stays whole, for who searches in it.
    """
    if sys.stderr.isatty():
        from kdmesh.report import layout

        text = "\n".join(layout.wrap(text, layout.terminal_width(sys.stderr), "    "))
    print(printable(text), file=sys.stderr, flush=True)


def in_utf8() -> None:
    """Begin this process again where the locale has an encoding in which not every name of a file can be written.

    What is printed stays in the locale's own encoding.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8" or sys.platform == "win32":
        return
    encoding = getattr(sys.stdout or sys.stderr, "encoding", None) or "utf-8"
    again = {"PYTHONIOENCODING": f"{encoding}:backslashreplace", **os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], again)


def printed(out: Steady, code: int, work: bool) -> int:
    """The exit code of a command after its output; ``work``: it has done more than to print.

    Where work was done the code says how that ended, and a line on stderr that its output is lost. Of others 141: the
    reader went away; 1: the output could not be written.
    """
    out.flush()
    if out.failed is None or code:
        return code
    if not work and out.failed.errno == errno.EPIPE:
        return 141
    what = out.failed.strerror or str(out.failed)
    print(f"kdmesh: the output could not be written: {what}", file=sys.stderr)
    if work:
        print("kdmesh: the run has still finished: all results are in its folder", file=sys.stderr)
    return 0 if work else 1
