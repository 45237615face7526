"""What to write an observer with that keeps figures of runs in a tracker, as MLflow is one; imports no torch.

A plugin has two modules. One imports the tracker's library and has a :class:`Tracker`, an object for each run; the
other is what its entry point names, and has an :class:`Observer`, which makes these::

    # kdmesh_foo/plugin.py, named by the entry point as kdmesh_foo.plugin:observer
    observer = Observer("kdmesh_foo.log:Log", wanted=lambda: "FOO_SERVER" in os.environ)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from kdmesh.contracts.sections import Section, Table
from kdmesh.hookspecs import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.contracts.run_info import RunInfo
    from kdmesh.contracts.sections import ReportedRun

__all__ = ["Identity", "Observer", "Tracker", "figures", "leaves"]

Axis = Literal["step", "round"]
End = Literal["finished", "failed", "interrupted"]
ROWS = 1000  # of the table on a page


class Tracker:
    """One run, as a tracker keeps it. A subclass writes: ``log``, ``summarise`` and ``close``.

    It is made as the run starts, where ``run.resumed`` says whether the run goes on in its folder, and is told of by
    one process only. What it raises is a warning, after which the run goes on and is not told of to it any more.

    Names are ``loss/student`` and ``flows/student/t -> student`` (agent, flow), ``reward/rollouts`` (a written stream)
    and ``accuracy/validation/student`` (metric, stream, agent), by the steps of the stage, at the end of the run by the
    agent's last step; and ``rounds/<stage>/...`` by rounds. They hold any letters.
    """

    def __init__(self, run: RunInfo) -> None:
        """``run``: what is told of it; its ``folder`` is not None."""
        self.run = run
        self._last: dict[str, int] = {}  # by agent, the last step that was told

    @property
    def about(self) -> dict[str, str | int]:
        """What tells this run from others: folder, seed, backend and part."""
        run = self.run
        return {"folder": str(run.folder), "seed": run.seed, "backend": run.backend, "part": run.part}

    def log(self, numbers: dict[str, float], at: int, axis: Axis) -> None:
        """Write numbers by name, at a step or a round. There is at least one."""
        raise NotImplementedError(f"{type(self).__name__} must write numbers")  # an abstract method, as the next two

    def summarise(self, numbers: dict[str, float], summary: Mapping[str, Any]) -> None:
        """Write the end of a run that succeeded: :func:`figures`, and what its ``summary.json`` has."""
        raise NotImplementedError(f"{type(self).__name__} must write the final figures")

    def close(self, end: End, error: str) -> None:
        """End the run; ``error``: why, where it did not succeed."""
        raise NotImplementedError(f"{type(self).__name__} must say how a run ends")

    def began(self, stage: str) -> None:
        """Take note that a stage begins."""

    def trained(
        self,
        step: int,
        losses: Mapping[str, float | None],
        flows: Mapping[str, Mapping[str, float | None]],
        rewards: Mapping[str, float | None],
    ) -> None:
        """Write mean losses of agents and of flows into them, and mean rewards of what agents wrote."""
        self._last.update(dict.fromkeys(losses, step))
        self.write({"loss": losses, "flows": flows, "reward": rewards}, step)

    def evaluated(self, agent: str, stream: str, metrics: Mapping[str, Any], step: int | None) -> None:
        """Write one evaluation of an agent."""
        step = self._last.get(agent, 0) if step is None else step
        self._last[agent] = step
        self.write({f"{metric}/{stream}/{agent}": value for metric, value in metrics.items()}, step)

    def round_finished(self, stage: str, round: int, metrics: Mapping[str, Any]) -> None:
        """Write what was measured in a round."""
        self.write({f"rounds/{stage}": metrics}, round, "round")

    def write(self, values: Mapping[str, Any], at: int, axis: Axis = "step") -> None:
        """Write every number of a nested mapping under its path, joined by ``/``; the rest is left out."""
        if numbers := _numbers(values):
            self.log(numbers, at, axis)


class Observer:
    """The hooks of a plugin that has a :class:`Tracker`: one for each run that has a folder.

    ``factory``: an import string of the tracker's class, imported as the first run starts. ``wanted``: whether runs are
    tracked at all, asked as each starts. ``identity``: which run of the tracker a folder is, said on the run's page
    under ``title``.
    """

    def __init__(
        self,
        factory: str,
        *,
        wanted: Callable[[], bool] = lambda: True,
        title: str = "",
        identity: Identity | None = None,
    ) -> None:
        self.factory, self.wanted, self.title, self.identity = factory, wanted, title, identity
        self.trackers: WeakKeyDictionary[Any, Tracker] = WeakKeyDictionary()  # by run; one that is not tracked has none

    @hookimpl
    def kdmesh_run_started(self, run: Any) -> None:
        """Begin, or go on with what an interrupted run has left."""
        if run.folder is not None and self.wanted():
            module, _, name = self.factory.partition(":")
            self.trackers[run] = getattr(import_module(module), name)(run)

    @hookimpl
    def kdmesh_stage_started(self, run: Any, stage: str) -> None:
        """Tell it."""
        if tracker := self.trackers.get(run):
            tracker.began(stage)

    @hookimpl
    def kdmesh_trained(
        self,
        run: Any,
        step: int,
        losses: dict[str, float | None],
        flows: dict[str, dict[str, float | None]],
        rewards: dict[str, float | None],
    ) -> None:
        """Tell it the mean losses and rewards since the last such call."""
        if tracker := self.trackers.get(run):
            tracker.trained(step, losses, flows, rewards)

    @hookimpl
    def kdmesh_agent_evaluated(
        self, run: Any, agent: str, stream: str, metrics: dict[str, float | None], step: int | None
    ) -> None:
        """Tell it what was measured."""
        if tracker := self.trackers.get(run):
            tracker.evaluated(agent, stream, metrics, step)

    @hookimpl
    def kdmesh_round_finished(self, run: Any, stage: str, round: int, metrics: dict[str, Any]) -> None:
        """Tell it what was measured in the round."""
        if tracker := self.trackers.get(run):
            tracker.round_finished(stage, round, metrics)

    @hookimpl
    def kdmesh_run_finished(self, run: Any, summary: dict[str, Any]) -> None:
        """Have it write the final figures, and end."""
        if tracker := self.trackers.pop(run, None):
            tracker.summarise(figures(summary), summary)
            tracker.close("finished", "")

    @hookimpl
    def kdmesh_run_failed(self, run: Any, error: str, interrupted: bool) -> None:
        """Have it say why the run ends."""
        if tracker := self.trackers.pop(run, None):
            tracker.close("interrupted" if interrupted else "failed", error)

    @hookimpl
    def kdmesh_report(self, run: ReportedRun) -> list[Section] | None:
        """Say on the run's page which runs of the tracker its seeds are; nothing of those that were not tracked."""
        if self.identity is None:
            return None
        found = {seed: about for seed, folder in run.seeds.items() if (about := self.identity.read(folder))}
        if not found:
            return None
        rows: list[list[Any]] = [[seed, *about] for seed, about in found.items()]
        table = Table(title="Runs", heads=["seed", self.identity.key, self.identity.within], rows=rows[:ROWS])
        return [Section(title=self.title, blocks=[table])]


@dataclass(frozen=True)
class Identity:
    """Which run of a tracker a folder is: a small file of it, so that a run that goes on is the same one there.

    ``file``: its name. ``key``, ``within``: what the tracker calls a run's id and what the run belongs to, a project
    say. ``form``: a regular expression that every id matches: a folder may come from anywhere.
    """

    file: str
    key: str
    within: str
    form: str

    def write(self, folder: Path, identity: str, within: str) -> None:
        """Keep it."""
        text = json.dumps({self.key: identity, self.within: within})
        (folder / self.file).write_text(text, encoding="utf-8")

    def read(self, folder: Path) -> tuple[str, str] | None:
        """The id, and what it belongs to; None where a folder says nothing, or what is no such thing."""
        try:
            about = json.loads((folder / self.file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        known = about.get(self.key) if isinstance(about, dict) else None
        if not isinstance(known, str) or not re.fullmatch(self.form, known):
            return None
        return known, str(about.get(self.within))[:200]


def figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """The final figures of a run's summary by name: ``final/student/test/accuracy``, also of each consensus.

    And how far each student is above its best teacher, ``final/accuracy over the best teacher/test/student``.
    """
    agents, metric = summary["agents"], summary["metric"]
    final = {name: about["metrics"] for name, about in {**agents, **summary["consensus"]}.items()}
    gains = {}
    for name, about in agents.items():
        for stream, metrics in about["metrics"].items():
            theirs = agents.get(about["best_teacher"], {}).get("metrics", {}).get(stream, {}).get(metric)
            if theirs is not None and metrics.get(metric) is not None:
                gains[f"{stream}/{name}"] = metrics[metric] - theirs
    return _numbers({"final": final, f"final/{metric} over the best teacher": gains})


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested mapping that is none itself, with its path: ``a/b``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a nested mapping by their paths."""
    return {name: value for name, value in leaves(values) if isinstance(value, int | float)}
