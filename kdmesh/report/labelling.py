"""What is shown while the store is filled ahead: how far it is, what it has cost, and what is left; and a table."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import IO, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Drawn
from rich.table import Column as Cells
from rich.text import Text

from kdmesh.errors import printable
from kdmesh.report.grid import KEPT, Column, Grid
from kdmesh.report.live import EVERY, Pace
from kdmesh.report.runs import amount
from kdmesh.report.words import clock


class Filled(Protocol):
    """What was done: see :class:`kdmesh.hosts.filling.Filled`."""

    @property
    def rows(self) -> int:
        """Samples that were asked for."""

    @property
    def forwards(self) -> int:
        """Forwards that were made."""

    @property
    def kept(self) -> int:
        """Bytes that were written."""


class Far(Protocol):
    """How far the labelling of an agent is: see :class:`kdmesh.engine.label.Far`."""

    agent: str
    rows: int
    there: int
    forwards: int
    seconds: float

    @property
    def done(self) -> Filled:
        """Of what was not there."""


class Lines:
    """Plain lines: what is to be done for each agent, how far it is every few seconds, and when it is done."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.last = stream, 0.0
        self.paces: dict[str, Pace] = {}

    def __call__(self, far: Far) -> None:
        """Show how far an agent is."""
        lacking, now = far.rows - far.there, monotonic()
        if far.agent not in self.paces:
            self.paces[far.agent] = Pace(total=lacking, since=None)
            self.line(_asked(far))
            return
        pace = self.paces[far.agent]
        pace.report(now, far.done.rows)
        self.move(far, pace, now)
        if far.done.rows >= lacking:
            self.finished(far)

    def line(self, text: str) -> None:
        """Say a line."""
        print(printable(text), file=self.stream, flush=True)

    def move(self, far: Far, pace: Pace, now: float) -> None:
        """Say how far it is, if it is time."""
        if now - self.last >= EVERY:
            self.last = now
            share = f"{pace.done / max(1, pace.total or 1):.0%}"
            self.line(f"{far.agent}: {share}, {_cost(far)}{_left(', ', pace, now)}")

    def finished(self, far: Far) -> None:
        """Say that an agent is done."""
        self.line(f"{far.agent}: done, {_cost(far)}")

    def close(self) -> None:
        """Give back what is held."""


class Bar(Lines):
    """A bar on a terminal, the lines above it."""

    def __init__(self, stream: IO[str], console: Console) -> None:
        super().__init__(stream)
        cells = ("{task.description}", "{task.fields[left]}", "{task.fields[cost]}")
        texts = [
            TextColumn(cell, markup=False, table_column=Cells(no_wrap=True, overflow="ellipsis")) for cell in cells
        ]
        self.drawn = Drawn(texts[0], BarColumn(20), *texts[1:], console=console, transient=True, auto_refresh=False)
        self.task = self.drawn.add_task("", total=1, left="", cost="")

    def line(self, text: str) -> None:
        """Say a line above the bar."""
        self.drawn.console.print(Text(printable(text)), soft_wrap=True)

    def move(self, far: Far, pace: Pace, now: float) -> None:
        """Move the bar."""
        left = _left("", pace, now)
        total = max(1, pace.total or 1)
        self.drawn.update(
            self.task, completed=pace.done, total=total, description=far.agent, left=left, cost=_cost(far)
        )
        self.drawn.start()
        self.drawn.refresh()

    def close(self) -> None:
        """Take the bar away."""
        self.drawn.stop()


def display(stream: IO[str], quiet: bool = False) -> Lines | None:
    """What shows a :class:`Far` each time it is called with one; None where nothing is to be shown."""
    if quiet:
        return None
    console = Console(file=stream)
    return Bar(stream, console) if stream.isatty() and console.is_interactive else Lines(stream)


def _asked(far: Far) -> str:
    lacking = far.rows - far.there
    if not lacking:
        return f"{far.agent}: all {far.rows:,} answers are there"
    return f"{far.agent}: {lacking:,} of {far.rows:,} answers are missing, about {far.forwards:,} forwards"


def _left(before: str, pace: Pace, now: float) -> str:
    """How long the rest takes, once two pieces tell."""
    seconds = pace.left(now)
    return "" if seconds is None else f"{before}{clock(seconds)} left"


def _cost(far: Far) -> str:
    done = far.done
    return f"{done.rows:,} answers, {done.forwards:,} forwards, {amount(done.kept)}, {far.seconds:.1f} s"


def table(agents: Mapping[str, Mapping[str, Any]]) -> Grid:
    """What there was and what was made, by agent: records of :class:`kdmesh.engine.label.Far`."""
    columns = [
        Column("agent", "agent", spare=KEPT),
        Column("answers", "rows", "{:,}".format),
        Column("were there", "there", "{:,}".format, 1),
        Column("forwarded", "forwarded", "{:,}".format),
        Column("forwards", "forwards", "{:,}".format),
        Column("kept", "kept", amount),
        Column("seconds", "seconds", "{:.1f}".format, 2),
    ]
    return Grid(
        "answers of frozen agents, each of a sample in a view",
        columns,
        [{"agent": name, **one} for name, one in agents.items()],
    )
