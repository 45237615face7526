"""What `compare` and `sweep` share: arguments, and how what they make is shown while it goes on and at its end."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from kdmesh.cli.common import add_backend, add_no_code, add_store, add_strict_signals
from kdmesh.cli.run import count
from kdmesh.errors import MeshError, RunFailed, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    class Work(Protocol):
        """A comparison or sweep in its folder."""

        root: Path

        def run(self, shown: Callable[[Any], None], steps: Mapping[str, int] | None = None) -> dict[str, Any]:
            """Make what lacks, and its table. RunFailed where trials failed."""
            ...

    Show = Callable[[Mapping[str, Any], Path], None]


OUT = "runs"  # where folders are made unless `--out` says


def add_trials(command: argparse.ArgumentParser) -> None:
    """Add how trials are judged and made, and where."""
    command.add_argument(
        "--equal", metavar="D", type=float, help="differences within D do not matter, in the metric's unit"
    )
    command.add_argument("--out", metavar="DIR", default=OUT, help="parent folder (default: %(default)s)")
    command.add_argument("--workers", metavar="N", type=count, help="trials side by side (default: one per core)")
    add_backend(command, "in the trial's own process")
    add_no_code(command)
    add_strict_signals(command)
    add_store(command)


def refuse_url(args: argparse.Namespace) -> None:
    """MeshError where `--out` is no folder of this machine."""
    from kdmesh.engine.collect import is_url

    if is_url(args.out):
        raise MeshError(f"found {args.out!r}", where="--out", instead="a folder: trials are made on this machine")


BEFORE = "nothing was begun: give the same command again"


@contextmanager
def advised(how: str) -> Iterator[None]:
    """Take a SIGTERM as a Ctrl-C inside, and say ``how`` to go on after either, where nobody has said more."""
    from kdmesh.engine.stopping import terminable

    with terminable():
        try:
            yield
        except KeyboardInterrupt as stop:
            if stop.args:
                raise
            raise KeyboardInterrupt(how) from None


def more(root: Path, args: argparse.Namespace) -> None:
    """Raise what trials may spend on endpoints, as ``--more`` of `kdmesh resume` asks."""
    from kdmesh.engine.spent import add_more_to_trials

    if args.more:
        add_more_to_trials(root, args.more)


def made(work: Work, table: str, args: argparse.Namespace, show: Show, steps: Mapping[str, int] | None = None) -> int:
    """Make what lacks, then show its tables and write its page, also where trials failed; returns the exit code.

    ``table``: the name of the file that then has the table. RunFailed, after that, as :meth:`Work.run`.
    """
    from kdmesh.files import read_json
    from kdmesh.report.many import listener

    since, failure = monotonic(), None
    shown = listener(sys.stderr, args.quiet)
    try:
        work.run(shown, steps)
    except RunFailed as error:
        failure = error
    finally:
        shown.close()
    if not args.no_report:
        page(work.root, monotonic() - since, args.quiet)
    show(read_json(work.root / table) or {}, work.root)
    if failure is not None:
        raise failure
    return 0


def page(root: Path, seconds: float, quiet: bool) -> None:
    """Write the page of what took so long; say on stderr where it is, or why there is none and how to have it."""
    from kdmesh.report.page.at_end import write_at_end
    from kdmesh.report.page.blocks import PAGE

    lacks = write_at_end(root, seconds)
    have = "renew" if (root / PAGE).is_file() else "have"
    lines = [f"its page {lacks}; to {have} it:", f"  kdmesh report {root}"] if lacks else [f"its page: {root / PAGE}"]
    for line in [] if quiet else lines:
        print(printable(line), file=sys.stderr)
