"""What is shown while many runs are made side by side: one progress of all, with one estimate of what is left."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import IO, Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Drawn
from rich.table import Column
from rich.text import Text

from kdmesh.errors import printable
from kdmesh.report.live import EVERY, Pace
from kdmesh.report.words import clock

EARLY = 0.05  # share that is done before what is left is told: first trials spend their time on imports
SHOWN = 3  # running trials that a line names


class Far(Protocol):
    """How far the whole is: see :class:`kdmesh.compare.making.Told`."""

    trials: int
    whole: int
    done: int
    total: int
    running: dict[str, float]
    line: str


def listener(stream: IO[str], quiet: bool = False) -> Many:
    """What shows a :class:`Far` each time it is called with one; ``close`` gives the terminal back."""
    console = Console(file=stream)
    if quiet:
        return Many(stream, False)
    return Bar(stream, console) if stream.isatty() and console.is_interactive else Many(stream)


class Many:
    """Plain lines: each that is worth one, and how far the whole is every few seconds."""

    def __init__(self, stream: IO[str], lines: bool = True) -> None:
        self.stream, self.lines, self.pace, self.last = stream, lines, Pace(), 0.0

    def __call__(self, far: Far) -> None:
        """Show how far it is."""
        now = monotonic()
        self.pace.total = far.total
        self.pace.report(now, far.done)
        if not self.lines:
            return
        if far.line:
            self.say(far, f"[{far.whole} of {far.trials}] {far.line}")
        self.move(far, now)

    def say(self, far: Far, text: str) -> None:
        """Say a line."""
        print(printable(text), file=self.stream, flush=True)

    def move(self, far: Far, now: float) -> None:
        """Say how far it is, if it is time."""
        if now - self.last >= EVERY and far.running:
            self.last = now
            self.say(far, f"{far.done / max(1, far.total):.0%}{self.left(now)}; {names(far.running)}")

    def left(self, now: float) -> str:
        """How long the rest takes, as text that follows a share."""
        seconds = self.pace.left(now) if self.pace.done >= EARLY * (self.pace.total or 1) else None
        return "" if seconds is None else f", {clock(seconds)} left"

    def close(self) -> None:
        """Give back what is held."""


class Bar(Many):
    """One bar on a terminal, the lines above it."""

    def __init__(self, stream: IO[str], console: Console) -> None:
        super().__init__(stream)
        cells = ("{task.description}", "{task.fields[share]}", "{task.fields[names]}")
        texts = [
            TextColumn(cell, markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")) for cell in cells
        ]
        self.drawn = Drawn(texts[0], BarColumn(20), *texts[1:], console=console, transient=True, auto_refresh=False)
        self.task = self.drawn.add_task("", total=1, share="", names="")

    def say(self, far: Far, text: str) -> None:
        """Say a line above the bar."""
        self.drawn.console.print(Text(printable(text)), soft_wrap=True)

    def move(self, far: Far, now: float) -> None:
        """Move the bar."""
        share = f"{far.done / max(1, far.total):.0%}{self.left(now)}"
        title = f"{far.whole} of {far.trials} trials"
        self.drawn.update(
            self.task, completed=far.done, total=max(1, far.total), description=title, share=share,
            names=names(far.running),
        )  # fmt: skip
        self.drawn.start()
        self.drawn.refresh()

    def close(self) -> None:
        """Take the bar away."""
        self.drawn.stop()


def names(running: Mapping[str, float]) -> str:
    """The runs that go on, each with its share."""
    known = [f"{name}: {share:.0%}" for name, share in running.items()]
    return ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")
