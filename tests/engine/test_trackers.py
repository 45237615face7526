"""An observer that tracks runs, by a tracker that keeps everything in memory and on disk; no library."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from kdmesh.plugins import PluginFile, Registry
from kdmesh.testing import Tracked, TrackerContract
from kdmesh.trackers import Identity, Observer, Tracker, figures, leaves

RUNS: list[Tracked] = []


class Memory(Tracker):
    """What it was told, in :data:`RUNS`."""

    def __init__(self, run: Any) -> None:
        super().__init__(run)
        known = IDENTITY.read(run.folder) if run.resumed else None
        if known is None:
            RUNS.append(Tracked(run.part, "running"))
            IDENTITY.write(run.folder, str(len(RUNS) - 1), "memory")
        self.kept = RUNS[int(known[0]) if known else -1]

    def log(self, numbers: dict[str, float], at: int, axis: str) -> None:
        for name, value in numbers.items():
            assert axis == ("round" if name.startswith("rounds/") else "step")
            self.kept.curves.setdefault(name, []).append((at, value))

    def summarise(self, numbers: dict[str, float], summary: Any) -> None:
        assert summary["metric"] == "accuracy"
        self.kept.final = numbers

    def close(self, end: str, error: str) -> None:
        self.kept.end, self.kept.error = end, error


IDENTITY = Identity("memory.json", key="number", within="place", form=r"\d{1,3}")
observer = Observer(f"{__name__}:Memory", title="Memory", identity=IDENTITY)


class TestMemory(TrackerContract):
    """The contract holds of the simplest tracker there is."""

    module: ClassVar[str] = ""  # it stands in a test, which imports torch
    expected_failures: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def plugin(self) -> Any:
        return observer

    @pytest.fixture(autouse=True)
    def tracked(self) -> Any:
        RUNS.clear()
        return lambda: RUNS

    def test_is_read_without_torch(self, plugin: Any) -> None:
        """Not in a test."""

    def test_the_hooks_are_read_without_the_library(self, plugin: Any) -> None:
        """There is none."""


class Forgetful(Memory):
    """One that leaves every third number away."""

    def log(self, numbers: dict[str, float], at: int, axis: str) -> None:
        super().log(dict(list(numbers.items())[::3]), at, axis)


def test_the_contract_sees_what_is_left_out(tmp_path):
    RUNS.clear()
    check = TestMemory()
    with pytest.raises((AssertionError, KeyError)):
        check.test_losses_are_read_back(
            Observer(f"{__name__}:Forgetful", title="Memory", identity=IDENTITY), lambda: RUNS, tmp_path
        )


def test_figures_are_numbers_and_gains():
    summary = {
        "metric": "accuracy",
        "agents": {
            "t": {"best_teacher": None, "metrics": {"test": {"accuracy": 0.5, "confusion": [[1]]}}},
            "s": {"best_teacher": "t", "metrics": {"test": {"accuracy": 0.75, "loss": None}}},
        },
        "consensus": {"c": {"metrics": {"test": {"accuracy": 0.25}}}},
    }
    assert figures(summary) == {
        "final/t/test/accuracy": 0.5,
        "final/s/test/accuracy": 0.75,
        "final/c/test/accuracy": 0.25,
        "final/accuracy over the best teacher/test/s": 0.25,
    }
    assert dict(leaves({"a": {"b": 1, "c": {"d": "x"}}, "e": None})) == {"a/b": 1, "a/c/d": "x", "e": None}


def test_an_observer_may_be_a_file_of_a_folder(tmp_path):
    """Its methods are hooks of a module, too, where the module has them by name."""
    source = "from kdmesh.trackers import Observer\nkdmesh_run_started = Observer('a:B').kdmesh_run_started\n"
    found = Registry([], [PluginFile("a_tracker_in_a_file", str(tmp_path / "a.py"), source)])
    assert [(one.status, one.error) for one in found.records] == [("ok", "")]


def test_an_identity_is_what_was_written(tmp_path):
    IDENTITY.write(tmp_path, "12", "größe")
    assert IDENTITY.read(tmp_path) == ("12", "größe")
    assert json.loads((tmp_path / "memory.json").read_text(encoding="utf-8")) == {"number": "12", "place": "größe"}


def test_rewards_are_written_by_stream():
    written = []

    class Kept(Tracker):
        def log(self, numbers: dict[str, float], at: int, axis: str) -> None:
            written.append((numbers, at, axis))

    one = Kept(SimpleNamespace(folder=None))  # type: ignore[arg-type]
    one.trained(7, {"s": 1.5}, {"s": {"labels -> s": 1.5}}, {"rollouts": 0.25, "drafts": None})
    one.trained(9, {}, {}, {"rollouts": 0.5})
    named = {"loss/s": 1.5, "flows/s/labels -> s": 1.5, "reward/rollouts": 0.25}
    assert written == [(named, 7, "step"), ({"reward/rollouts": 0.5}, 9, "step")]
