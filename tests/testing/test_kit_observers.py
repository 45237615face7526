"""The contract of observers passes one that only watches, and finds what one does to a run."""

from __future__ import annotations

import os
import random
import signal
import sys
from inspect import signature
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from kdmesh.hookspecs import hookimpl
from kdmesh.testing import ObserverContract
from kdmesh.testing.observers import Told, left_out, run

pytest_plugins = ["kdmesh.testing.run_mesh"]
CHECKS = sorted(name for name in vars(ObserverContract) if name.startswith("test_"))


class Watching:
    """Keeps what it is told by run, and takes what is not known."""

    def __init__(self) -> None:
        self.logs = {}

    @hookimpl
    def kdmesh_run_started(self, run):
        self.logs[run] = []

    @hookimpl
    def kdmesh_trained(self, run, stage, step, losses):
        self.logs[run].append((stage, step, losses))

    @hookimpl
    def kdmesh_agent_evaluated(self, run, agent, metrics):
        self.logs[run].append((agent, metrics))

    @hookimpl
    def kdmesh_run_finished(self, run):
        self.logs.pop(run)

    @hookimpl
    def kdmesh_run_failed(self, run):
        self.logs.pop(run)


class Rounding(Watching):
    """Takes every figure for a number."""

    @hookimpl
    def kdmesh_agent_evaluated(self, run, agent, metrics):
        self.logs[run].append({name: round(value, 3) for name, value in metrics.items()})


class OneAtATime(Watching):
    """Keeps one run, and forgets it at its end."""

    @hookimpl
    def kdmesh_run_started(self, run):
        self.open, self.logs[run] = run, []

    @hookimpl
    def kdmesh_run_finished(self, run):
        assert self.open is run
        self.logs.pop(run)


class InItsFolder(Watching):
    """Writes into the run's folder, and into the working folder where there is none."""

    @hookimpl
    def kdmesh_run_started(self, run):
        self.logs[run] = []
        with open(os.path.join(run.folder or "", "log.txt"), "w"):
            pass


class Drawing(Watching):
    """Names a run at random."""

    @hookimpl
    def kdmesh_run_started(self, run):
        self.logs[run] = [random.random()]


class Greedy(Watching):
    """Takes what belongs to the run."""

    @hookimpl
    def kdmesh_stage_started(self):
        torch.set_num_threads(torch.get_num_threads() + 1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Unfinished(Watching):
    """Cannot take a run that fails, nor one that is interrupted."""

    @hookimpl
    def kdmesh_run_failed(self, run, error):
        raise ValueError(error)


class Forgetful(Watching):
    """Wants a new folder for each run."""

    @hookimpl
    def kdmesh_run_started(self, run):
        self.logs[run] = []
        if run.folder is not None:
            (run.folder / "mine").mkdir()


class ByName(Watching):
    """Takes runs of one name for one."""

    seen: ClassVar[set[str]] = set()

    @hookimpl
    def kdmesh_run_started(self, run):
        self.logs[run] = []
        assert run.mesh.name not in self.seen
        self.seen.add(run.mesh.name)


class Offering:
    """Observes nothing."""

    @hookimpl
    def kdmesh_models(self):
        return []


class Outdated:
    """Wants what no hook gives."""

    @hookimpl
    def kdmesh_run_started(self, run, walk):
        pass


def check(name, plugin, tmp_path, monkeypatch, run_mesh):
    """Run one check of the contract."""
    contract = ObserverContract()
    known = {"plugin": plugin, "tmp_path": tmp_path, "monkeypatch": monkeypatch, "run_mesh": run_mesh, "on_ray": None}
    wanted = signature(getattr(contract, name)).parameters
    if "told" in wanted:
        known["told"] = ObserverContract.told.__wrapped__(contract, plugin, tmp_path)
    getattr(contract, name)(**{one: known[one] for one in wanted})


@pytest.fixture(autouse=True)
def as_it_was():
    """What the wrong ones change of this process is put back."""
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


HERE = [name for name in CHECKS if name not in ("test_is_read_without_torch", "test_ray_gives_the_same_bits")]


@pytest.mark.parametrize("name", [*HERE, pytest.param("test_ray_gives_the_same_bits", marks=pytest.mark.ray)])
def test_one_that_only_watches_passes(name, tmp_path, monkeypatch, run_mesh):
    check(name, Watching(), tmp_path, monkeypatch, run_mesh)


@pytest.mark.parametrize(
    ("name", "plugin", "said"),
    [
        ("test_takes_what_is_not_known", Rounding, "raises in kdmesh_agent_evaluated"),
        ("test_runs_do_not_get_mixed_up", OneAtATime, "with two runs at a time"),
        ("test_a_run_without_a_folder", InItsFolder, r"leaves log\.txt"),
        ("test_leaves_the_process_as_it_was", Drawing, "changes Python's default generator"),
        ("test_leaves_the_process_as_it_was", Greedy, "how many threads torch uses, the handler of SIGTERM"),
        ("test_a_run_that_fails", Unfinished, "failed in kdmesh_run_failed"),
        ("test_an_interrupted_run_goes_on", Forgetful, "failed in kdmesh_run_started"),
        ("test_seeds_and_controls_are_runs_of_their_own", ByName, "failed in kdmesh_run_started"),
        ("test_hooks_are_known", Offering, "no hook that observes"),
        ("test_hooks_are_known", Outdated, "walk"),
    ],
)
def test_what_is_wrong_is_found(name, plugin, said, tmp_path, monkeypatch, run_mesh):
    with pytest.raises(Exception, match=said):
        check(name, plugin(), tmp_path, monkeypatch, run_mesh)


def test_a_module_with_torch_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "heavy_observer.py").write_text("import torch\n")
    contract = ObserverContract()
    monkeypatch.setattr(ObserverContract, "module", "heavy_observer")
    with pytest.raises(AssertionError, match="imports torch"):
        contract.test_is_read_without_torch(SimpleNamespace())
    assert "heavy_observer" not in sys.modules


def test_who_is_told_keeps_all_of_it(tmp_path):
    recorder = Told()
    with left_out(recorder):
        run(tmp_path, recorder)
    hooks = [hook for hook, _ in recorder.calls]
    assert len(recorder.runs) == 1 and hooks[0] == "kdmesh_run_started" and hooks[-1] == "kdmesh_run_finished"
    assert {"kdmesh_trained", "kdmesh_round_finished", "kdmesh_stage_finished"} <= {*hooks}
