"""The contract of an observer that keeps figures of runs in a tracker, by :mod:`kdmesh.trackers`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kdmesh.contracts.events import Event, Trained
from kdmesh.contracts.run_files import LOG
from kdmesh.contracts.sections import ReportedRun
from kdmesh.errors import MeshError, RunFailed
from kdmesh.plugins import Registry
from kdmesh.testing.observers import ROUNDS, TAUGHT, ObserverContract, run


@dataclass
class Tracked:
    """A run, read back from the tracker.

    ``name``: what the tracker calls it. ``curves``: points ``(step or round, value)`` by name, as they were written.
    ``final``: the figures of its end by name. ``end``: `finished`, `failed`, `interrupted`, or `running`.
    """

    name: str
    end: str
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)
    error: str = ""


class TrackerContract(ObserverContract):
    """Checks what real runs leave in the tracker, beside what every observer keeps to.

    A test has a fixture ``tracked``, which points the tracker to a place of its own and gives a function that reads the
    runs back from there, the first one first, as :class:`Tracked`; ask for it with ``autouse`` where it sets things up.

    - ``module``: what the entry point names, ``package.module:observer``.
    - ``library``: a module without which the tracker cannot write; ``install``: what a user is then told to install.
    - ``switches``: the environment in which nothing is tracked; empty: there is none.
    - ``continues``: a run that goes on is the same one of the tracker.
    """

    __test__ = False
    library: ClassVar[str] = ""
    install: ClassVar[str] = ""
    switches: ClassVar[dict[str, str]] = {}
    continues: ClassVar[bool] = True

    def key(self, name: str) -> str:
        """How the tracker writes a name."""
        return name

    def test_losses_are_read_back(self, plugin: Any, tracked: Callable[[], list[Tracked]], tmp_path: Path) -> None:
        """Every point of every curve, by the steps of the agent's stage."""
        run(tmp_path, plugin, TAUGHT)
        (folder,) = tmp_path.glob("*/*")
        expected: dict[str, list[tuple[int, float]]] = {}
        for event in _events(folder, "trained"):
            for agent, loss in event["losses"].items():
                expected.setdefault(f"loss/{agent}", []).append((event["step"], loss))
                for flow, part in event["flows"][agent].items():
                    expected.setdefault(f"flows/{agent}/{flow}", []).append((event["step"], part))
        (found,) = tracked()
        assert found.end == "finished" and len(expected) == 5, found
        for name, points in expected.items():
            assert found.curves[self.key(name)] == [(step, pytest.approx(value)) for step, value in points], name

    def test_figures_are_read_back(self, plugin: Any, tracked: Callable[[], list[Tracked]], tmp_path: Path) -> None:
        """Evaluations as they come; at the end those of the summary, and how far a student is above its teacher."""
        run(tmp_path, plugin, TAUGHT)
        (folder,) = tmp_path.glob("*/*")
        summary, (found,) = json.loads((folder / "summary.json").read_text(encoding="utf-8")), tracked()
        expected: dict[str, list[float]] = {}
        for event in _events(folder, "evaluated"):
            for metric, value in event["metrics"].items():
                expected.setdefault(f"{metric}/{event['stream']}/{event['agent']}", []).append(value)
        assert {name.partition("/")[2] for name in expected} >= {"validation/a", "test/a", "validation/b", "test/b"}
        for name, values in expected.items():
            assert [value for _, value in found.curves[self.key(name)]] == pytest.approx(values), name
        accuracy = {name: about["metrics"]["test"]["accuracy"] for name, about in summary["agents"].items()}
        assert found.final[self.key("final/b/test/accuracy")] == pytest.approx(accuracy["b"])
        gain = found.final[self.key("final/accuracy over the best teacher/test/b")]
        assert gain == pytest.approx(accuracy["b"] - accuracy["a"])

    def test_rounds_are_read_back(self, plugin: Any, tracked: Callable[[], list[Tracked]], tmp_path: Path) -> None:
        """What was measured in a round, by rounds."""
        run(tmp_path, plugin, ROUNDS)
        (folder,) = tmp_path.glob("*/*")
        rounds, (found,) = _events(folder, "round_finished"), tracked()
        points = [(one["round"], pytest.approx(one["metrics"]["agreement"])) for one in rounds]
        assert len(points) == 2 and found.curves[self.key(f"rounds/{rounds[0]['stage']}/agreement")] == points

    def test_seeds_are_tracked_apart(self, plugin: Any, tracked: Callable[[], list[Tracked]], tmp_path: Path) -> None:
        """Two seeds are two runs, called after their part."""
        run(tmp_path, plugin, TAUGHT, seeds=2)
        assert [(one.name, one.end) for one in tracked()] == [("seed 0", "finished"), ("seed 1", "finished")]

    def test_a_failure_has_its_error(self, plugin: Any, tracked: Callable[[], list[Tracked]], tmp_path: Path) -> None:
        """It is kept why a run failed."""
        with pytest.raises(RunFailed):
            run(tmp_path, plugin, optimizer={"sgd": {"lr": 1e30}})
        (found,) = tracked()
        assert found.end == "failed" and "the loss became" in found.error

    def test_a_run_that_goes_on_is_the_same(
        self, plugin: Any, tracked: Callable[[], list[Tracked]], tmp_path: Path
    ) -> None:
        """Interrupted, a run says so; resumed, it goes on as the same one."""

        def interrupt(event: Event) -> None:
            if isinstance(event, Trained) and event.step > 16:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, plugin, listeners=(interrupt,), checkpoint_seconds=0)
        assert [one.end for one in tracked()] == ["interrupted"]
        (folder,) = tmp_path.glob("*/*")
        run(None, plugin, resume=folder)
        found = tracked()
        assert found[-1].end == "finished" and (len(found) == 1) == self.continues

    def test_the_page_says_which_it_is(self, plugin: Any, tracked: Callable[[], list[Tracked]], tmp_path: Path) -> None:
        """The id stands on the page of a run that was tracked, and nothing on that of another."""
        run(tmp_path / "with", plugin, TAUGHT)
        (folder,) = (tmp_path / "with").glob("*/*")
        shown = plugin.kdmesh_report(ReportedRun(folder, "finished", {}, {0: folder}, {}))
        assert shown, "nothing"
        if plugin.identity is not None:
            assert plugin.identity.read(folder)[0] in repr(shown)
        assert plugin.kdmesh_report(ReportedRun(tmp_path, "finished", {}, {0: tmp_path}, {})) is None

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"%s": 3e5}', '{"%s": "../../elsewhere"}', '{"%s": "a b"}'])
    def test_what_is_no_id_is_not_gone_on_with(self, plugin: Any, tmp_path: Path, text: str) -> None:
        """A folder may come from anywhere."""
        if plugin.identity is None:
            pytest.skip("it has no identity")
        (tmp_path / plugin.identity.file).write_text(text.replace("%s", plugin.identity.key), encoding="utf-8")
        assert plugin.identity.read(tmp_path) is None

    def test_nothing_is_tracked_where_nobody_asks(
        self, plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the environment."""
        if not self.switches:
            pytest.skip("`switches` are not declared")
        for name, value in self.switches.items():
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                assert not plugin.wanted(), f"{name}={value}"

    def test_without_its_library_the_user_is_told(
        self, plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The run goes on, with one warning that says what to install."""
        if not self.library:
            pytest.skip("`library` is not declared")
        monkeypatch.setitem(sys.modules, self.library, None)
        monkeypatch.delitem(sys.modules, plugin.factory.partition(":")[0], raising=False)
        told = _Run(tmp_path)
        with pytest.raises(MeshError, match=self.install):
            plugin.kdmesh_run_started(told)
        assert Registry([plugin]).observe("kdmesh_run_started", run=told)
        assert self.install in capsys.readouterr().err and not list(tmp_path.iterdir())

    def test_the_hooks_are_read_without_the_library(self, plugin: Any) -> None:
        """Commands import them, whether runs are tracked or not."""
        name = self.library.partition(".")[0]
        probe = (
            f"import json, sys\nsys.path[:] = json.loads(sys.argv[1])\nimport {self.module.partition(':')[0]}\n"
            f"print({name!r} in sys.modules)"
        )
        command = [sys.executable, "-c", probe, json.dumps(sys.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n", f"importing the hooks imports {name}"


class _Run:
    """As much of a run as one that cannot be tracked is asked for."""

    resumed, seed, backend, part = False, 0, "inline", "seed 0"

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind in a run's log."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]
