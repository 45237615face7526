"""The frames of a plugin's own code are printed where that is asked for, and nowhere else."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

import kdmesh
from kdmesh.cli import main
from kdmesh.errors import TRACEBACK, RunFailed, frames_of, line_of

PLUGIN = """
import torch
from kdmesh import hookimpl
from kdmesh.objectives import Objective
from kdmesh.offers import Config, ObjectiveOffer


class Tired(Objective):
    calls = 0

    def forward(self, student, target, *, form, weights=None, step):
        return self._deeper(student, step)

    def _deeper(self, student, step):
        if step >= FAILS:
            try:
                {}["key"]
            except KeyError as error:
                raise ValueError("tired of it") from error
        return (student @ torch.ones(WIDTH, 1)).mean()


@hookimpl
def kdmesh_objectives():
    return [ObjectiveOffer("tired", f"{__name__}:Tired", Config, needs=("step",))]
"""
MESH = """
data: {dataset: digits, train: 64, validation: 0.2}
agents: {a: {model: {mlp: {hidden: [4]}}}, b: {model: {mlp: {hidden: [4]}}}}
flows:
  - {from: labels, to: a, objective: ce}
  - {from: a, to: b, objective: tired}
train: {steps: 6, batch_size: 16}
"""


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """The arguments that name a mesh and the folder of its plugin, which fails in the fourth step unless told."""
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", "")
    monkeypatch.delenv(TRACEBACK, raising=False)
    monkeypatch.chdir(tmp_path)
    text = PLUGIN.replace("FAILS", "4").replace("WIDTH", getattr(request, "param", "10"))
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "tired_plugin.py").write_text(text, encoding="utf-8")
    (tmp_path / "mesh.yaml").write_text(MESH, encoding="utf-8")
    request.addfinalizer(lambda: sys.modules.pop("tired_plugin", None))
    return [str(tmp_path / "mesh.yaml"), "--plugins-dir", str(tmp_path / "single")]


OURS = str(Path(kdmesh.__file__).parent)


def test_by_default_there_is_none(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *given, "--no-report"]) == 1
    said = capsys.readouterr().err
    assert "the objective 'tired' of" in said and "(tired_plugin.py, line " in said and "Traceback" not in said


@pytest.mark.parametrize("how", ["flag", "environment", "seeds"])
def test_where_it_is_asked_for_its_own_frames_are_printed(
    given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    more = {"flag": ["--traceback"], "seeds": ["--traceback", "--seeds", "2"]}.get(how, [])
    if how == "environment":
        monkeypatch.setenv(TRACEBACK, "1")
    assert main(["run", *given, "--no-report", *more]) == 1
    said = capsys.readouterr().err
    _, told, frames = said.rpartition("kdmesh: error: ")
    assert told and frames.count("Traceback (most recent call last):") == 2  # and of what it was raised for
    assert frames.index("KeyError: 'key'") < frames.index("in forward") < frames.index("in _deeper\n    raise ValueErr")
    assert frames.rstrip().endswith("ValueError: tired of it") and f'"{OURS}{os.sep}' not in frames
    assert os.environ.get(TRACEBACK) == ("1" if how == "environment" else None)


@pytest.mark.parametrize("given", ["7"], indirect=True)
def test_check_has_it_too_and_a_librarys_frames_below(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *given, "--traceback"]) in (1, 2)
    said = capsys.readouterr().err
    assert "in _deeper" in said and "RuntimeError: mat1 and mat2 shapes" in said and f'"{OURS}{os.sep}' not in said


def test_where_no_plugin_is_at_fault_that_is_said(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *given, "--traceback", "--set", "agents.a.model=mlpp"]) == 2
    said = capsys.readouterr().err
    assert "unknown model 'mlpp'" in said and "(no code of a plugin on the way to it" in said


def test_a_plugin_that_does_not_load_has_its_frames(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    broken = "def load():\n    raise ImportError('not here')\n\nload()\n"
    (Path(given[2]) / "broken_plugin.py").write_text(broken, encoding="utf-8")
    assert main(["plan", *given]) == 0
    assert "not here" in (said := capsys.readouterr().err) and "Traceback" not in said
    from kdmesh.plugins.current import _registry

    _registry.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TRACEBACK, "1")
        assert main(["plan", *given]) == 0
    said = capsys.readouterr().err
    assert "broken_plugin.py" in said and "in load" in said and f'"{OURS}{os.sep}' not in said


def test_an_observer_that_fails_has_its_frames(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    watch = "import kdmesh\n\n@kdmesh.hookimpl\ndef kdmesh_stage_started(stage):\n    raise ValueError('unseen')\n"
    (Path(given[2]) / "watch_plugin.py").write_text(watch, encoding="utf-8")
    assert main(["run", *given, "--no-report", "--set", "train.steps=2", "--traceback"]) == 0
    said = capsys.readouterr().err
    assert "failed in kdmesh_stage_started: ValueError: unseen" in said and "in kdmesh_stage_started\n" in said
    assert f'"{OURS}{os.sep}' not in said and said.count("Traceback") == 1  # it is told no more


def test_what_crosses_processes_keeps_them() -> None:
    def theirs() -> None:
        raise ValueError("theirs")

    try:
        try:
            theirs()
        except ValueError as error:
            raise RunFailed("it failed", where="here", instead="another") from error
    except RunFailed as error:
        there = pickle.loads(pickle.dumps(error))
    assert str(there) == "here: it failed\n  instead: another" and there.__cause__ is None
    assert frames_of(there) == frames_of(pickle.loads(pickle.dumps(there))) and "in theirs" in frames_of(there)
    assert frames_of(RunFailed("nothing")) == line_of(ValueError()) == ""


@pytest.mark.ray
def test_frames_of_a_host_on_ray(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *given, "--no-report", "--traceback", "--backend", "ray"]) == 1
    _, _, frames = capsys.readouterr().err.rpartition("kdmesh: error: ")
    assert "in forward" in frames and "in _deeper" in frames and f'"{OURS}{os.sep}' not in frames
