"""A driver that dies: `kdmesh run` in a process of its own, which kills itself at the points of a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from commands import PATIENCE, ROOT, Command  # noqa: E402
from left import holders, temporary  # noqa: E402

if TYPE_CHECKING:
    from points import Deaths


class Alone(Command):
    """A command of which nothing may stay, not even what no mark tells of."""

    def end(self) -> tuple[int, str]:
        """Wait for the end, of its children too."""
        code, said = super().end()
        deadline = time.monotonic() + PATIENCE
        while left := holders(temporary(self.process.pid)):  # one that was killed closes its files as it ends
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)
        return code, said


class Doomed(Alone):
    """`kdmesh run` with points; `kdmesh resume` without."""

    def __init__(self, folder: Path, text: str, planned: Deaths, *arguments: str) -> None:
        self.planned = planned
        super().__init__(folder, text, *arguments)

    def start(self, *arguments: str, **environment: str) -> None:
        """Begin a command."""
        if arguments[0] == "resume":
            return super().start(*arguments, **environment)
        self.mark = f"KDMESH_TEST_MARK={os.urandom(16).hex()}"
        name, _, value = self.mark.partition("=")
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.planned.folder), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": paths, name: value},
            start_new_session=True,
        )
        return None


def main(folder: Path, arguments: list[str]) -> int:
    """Run, and die: as a call is queued, or, after the call that writes a checkpoint, as its manifest would be."""
    from points import Deaths, watched

    from kdmesh import backends, cli
    from kdmesh.engine.checkpoint import Checkpoints

    planned, usual, complete = Deaths(folder), backends.make_backend, Checkpoints.complete
    with ExitStack() as stack:

        def make(*args: Any) -> Any:
            backend = usual(*args)
            stack.enter_context(watched(backend, planned))
            return backend

        def late(self: Checkpoints, *args: Any) -> None:
            for index, point in enumerate(planned.points):
                if point.after and planned.counts.seen[point.host, "checkpoint"] >= point.number:
                    planned.strike(index, "the manifest")
            complete(self, *args)

        backends.make_backend = make
        Checkpoints.complete = late  # type: ignore[method-assign]
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
