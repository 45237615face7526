"""What a run shows while it goes on: bars on a terminal, plain lines in a pipe.

Both listen to a run's events (``kdmesh/contracts/events.py``). A figure that is null is left out of the text, and names
are never read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Drawn
from rich.table import Column
from rich.text import Text

from kdmesh.contracts.events import (
    Evaluated,
    Event,
    Note,
    PartStarted,
    Progress,
    RunStarted,
    StageFinished,
    StageFinishedBefore,
    StageStarted,
)
from kdmesh.errors import printable
from kdmesh.report.words import clock, losses_text, say

EVERY = 5.0  # seconds between two lines of progress in a pipe
SHOWN = 4  # running stages that such a line names


def listener(stream: IO[str], quiet: bool = False) -> Callable[[Event], None]:
    """Return a listener that shows a run on ``stream``; a quiet one shows notes only.

    ``Events.close`` closes it, which gives the terminal back.
    """
    if quiet:
        return lambda event: _print(stream, say(event)) if isinstance(event, Note) else None
    return display(stream)


def display(stream: IO[str]) -> Display:
    """Return a display of bars, or of lines where the stream is no terminal that can draw them."""
    console = Console(file=stream)
    return Bars(console) if stream.isatty() and console.is_interactive else Lines(stream)


@dataclass
class Pace:
    """How far something is, and how long the rest takes at the pace since the first report seen."""

    done: int = 0
    total: int | None = None
    since: tuple[float, int] | None = None  # time and steps at the first report: a resumed run does not start at 0

    def report(self, now: float, done: int) -> None:
        """Take note of the steps that are done."""
        self.done = done
        self.since = self.since or (now, done)

    def left(self, now: float) -> float | None:
        """Return the seconds that are left, or None while nobody can say."""
        if not self.total or self.since is None or self.done <= self.since[1]:
            return None
        return (now - self.since[0]) / (self.done - self.since[1]) * max(self.total - self.done, 0)


@dataclass
class Stage:
    """A stage as its events tell it."""

    pace: Pace = field(default_factory=Pace)
    running: bool = False
    losses: Mapping[str, float | None] = field(default_factory=dict)
    held: dict[tuple[str, str], Event] = field(default_factory=dict)  # last evaluation per agent and stream


class Display:
    """Follows the stages; says each line when it is due. How lines and progress look is up to the subclass."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self.overall = Pace()
        self.behind, self.ahead, self.parts = 0, 0, 1  # steps of other seeds and controls, and how many there are

    def __call__(self, event: Event) -> None:
        """Show one event. Evaluations wait for the end of their stage, which says the last of each."""
        match event:
            case PartStarted():
                self.stages, self.behind, self.ahead, self.parts = {}, event.behind, event.ahead, event.parts
            case RunStarted():
                for row in event.stages:
                    self._stage(row["stage"]).pace.total = row["steps"]
            case StageStarted():
                stage = self._stage(event.stage)
                stage.running, stage.pace.total = True, event.steps or stage.pace.total
            case StageFinishedBefore():
                stage = self._stage(event.stage)
                stage.pace.done = stage.pace.total or 0
            case Progress():
                self._advance(event)
                self.progress(event.stage, event.t)
            case Evaluated() if self._stage(event.stage).running:
                self._stage(event.stage).held[event.agent, event.stream] = event
                return
            case StageFinished():
                self._close(event.stage)
        self.line(say(event))

    def _stage(self, name: str) -> Stage:
        return self.stages.setdefault(name, Stage())

    def _advance(self, event: Progress) -> None:
        stage = self._stage(event.stage)
        stage.running, stage.losses = True, event.losses
        stage.pace.total = event.steps or stage.pace.total
        stage.pace.report(event.t, event.done)
        paces = [each.pace for each in self.stages.values()]
        self.overall.total = self.behind + self.ahead + sum(pace.total or pace.done for pace in paces)
        self.overall.report(event.t, self.behind + sum(pace.done for pace in paces))

    def _close(self, name: str) -> None:
        stage = self._stage(name)
        for evaluation in stage.held.values():
            self.line(say(evaluation))
        stage.running, stage.held = False, {}
        stage.pace.total = stage.pace.done  # it may have stopped early: nothing is left of it
        self.finished(name)

    def line(self, text: str) -> None:
        """Say a line, unless it is empty."""
        raise NotImplementedError("a display says lines")

    def progress(self, name: str, now: float) -> None:
        """Show how far a stage is."""
        raise NotImplementedError("a display shows progress")

    def finished(self, name: str) -> None:
        """Show that a stage is no longer running."""

    def close(self) -> None:
        """Give back what the display holds."""


class Lines(Display):
    """Plain lines, progress at most every few seconds: for pipes, logs and files."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream, self._last = stream, 0.0

    def line(self, text: str) -> None:
        """Print a line."""
        _print(self._stream, text)

    def progress(self, name: str, now: float) -> None:
        """Print how far the run and its running stages are, if it is time."""
        if now - self._last < EVERY:
            return
        self._last = now
        running = [(name, stage) for name, stage in self.stages.items() if stage.running]
        parts = [f"{name} {_steps(stage.pace)} {losses_text(stage.losses)}".rstrip() for name, stage in running[:SHOWN]]
        more = [f"{len(running) - SHOWN} more stages"] if len(running) > SHOWN else []
        percent = f"{100 * self.overall.done / (self.overall.total or 1):.0f}%"
        self.line("; ".join([", ".join([percent, *_left(self.overall, now)]), *parts, *more]))


class Bars(Display):
    """A bar per running stage, one for the whole run if it has several stages, and the lines above them."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        cells = ("{task.description}", "{task.fields[steps]}", "{task.fields[left]}", "{task.fields[losses]}")
        texts = [
            TextColumn(cell, markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")) for cell in cells
        ]
        # Drawn when an event says something new: no thread of its own beside the training.
        self._bars = Drawn(texts[0], BarColumn(20), *texts[1:], console=console, transient=True, auto_refresh=False)
        self._tasks: dict[str, TaskID] = {}

    def line(self, text: str) -> None:
        """Print a line above the bars."""
        if text:
            self._bars.console.print(Text(printable(text)), soft_wrap=True)

    def progress(self, name: str, now: float) -> None:
        """Move the stage's bar and the run's."""
        if len(self.stages) > 1 or self.parts > 1:
            self._move("", "everything" if self.parts > 1 else "all stages", self.overall, now, {})
        self._move(name, name, self.stages[name].pace, now, self.stages[name].losses)
        self._bars.start()
        self._bars.refresh()

    def finished(self, name: str) -> None:
        """Take the stage's bar away, and the last one with the run's."""
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        if not any(stage.running for stage in self.stages.values()):
            self.close()

    def close(self) -> None:
        """Take all bars away and give the terminal back; a later progress draws them anew."""
        self._bars.stop()

    def _move(self, key: str, name: str, pace: Pace, now: float, losses: Mapping[str, float | None]) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(name, total=pace.total, steps="", left="", losses="")
        left, text = "".join(_left(pace, now)), losses_text(losses)
        task = self._tasks[key]
        self._bars.update(task, completed=pace.done, total=pace.total, steps=_steps(pace), left=left, losses=text)


def _steps(pace: Pace) -> str:
    return f"{pace.done:,}/{pace.total:,}" if pace.total else f"{pace.done:,}"


def _left(pace: Pace, now: float) -> list[str]:
    left = pace.left(now)
    return [] if left is None else [f"{clock(left)} left"]


def _print(stream: IO[str], text: str) -> None:
    if text:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        print(printable(text).encode(encoding, "replace").decode(encoding), file=stream, flush=True)
