"""`kdmesh compare` of folders that are there already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdmesh.cli import main


def run(at: Path, values: dict[int, float], name: str = "one", **data) -> str:
    """A run's folder as far as a comparison reads it: a seed each in its own folder."""
    data = {"dataset": "digits", "seed": 0, "test": 0.2, **data}
    manifest = {
        "seed": min(values),
        "mesh": {"name": name, "data": data},
        "data": {"source": "digits", "sha256": "0", "streams": {"test": 100}},
        "begun": {"backend": "inline", "strict_signals": False, "beside": [], "seeds": len(values), "controls": False},
    }
    at.mkdir()
    (at / "manifest.json").write_text(json.dumps(manifest))
    (at / "results.json").write_text(json.dumps({"failed": {}}))
    for seed, value in values.items():
        part = at / "seeds" / str(seed) if len(values) > 1 else at
        part.mkdir(parents=True, exist_ok=True)
        agents = {"s": {"role": "student", "metrics": {"test": {"accuracy": value}}}, "t": {"role": "teacher"}}
        begun = {**manifest["begun"], "seeds": 1, "within": "../.."}
        (part / "summary.json").write_text(json.dumps({"task": "classification", "seed": seed, "agents": agents}))
        if part != at:
            (part / "manifest.json").write_text(json.dumps({**manifest, "seed": seed, "begun": begun}))
    return str(at)


def test_runs_are_paired_by_the_seeds_that_both_have(tmp_path, capsys):
    one = run(tmp_path / "a", {0: 0.90, 1: 0.92, 2: 0.91, 3: 0.90})
    two = run(tmp_path / "b", {1: 0.80, 2: 0.82, 3: 0.79, 4: 0.1}, "two")
    assert main(["compare", one, two]) == 0
    said = capsys.readouterr().out
    assert "two minus one" in said and "worse" in said and "0/0/3" in said


def test_one_mesh_run_twice_has_two_names(tmp_path, capsys):
    same = {0: 0.5, 1: 0.6}
    assert main(["compare", run(tmp_path / "a", same), run(tmp_path / "b", same)]) == 0
    assert "one-2 minus one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"values": {7: 0.1, 8: 0.2}}, "none of both"),
        ({"values": {0: 0.1, 1: 0.2}, "seed": 3}, "different samples"),
        ({"values": {0: 0.1, 1: 0.2}, "test": 0.5}, "different samples"),
    ],
)
def test_runs_that_cannot_be_paired_are_refused(tmp_path, capsys, other, said):
    one = run(tmp_path / "a", {0: 0.90, 1: 0.92})
    assert main(["compare", one, run(tmp_path / "b", other.pop("values"), **other)]) == 2
    assert said in capsys.readouterr().err


def test_a_run_beside_a_mesh_and_one_without_a_summary_are_refused(tmp_path, capsys):
    one = run(tmp_path / "a", {0: 0.9})
    assert main(["compare", one, "ensemble"]) == 2
    assert "meshes alone, or runs alone" in capsys.readouterr().err
    two = run(tmp_path / "b", {0: 0.9})
    Path(two, "summary.json").unlink()
    assert main(["compare", one, two]) == 2
    assert "has no summary yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--variant", "train.epochs=1"], ["--set", "train.epochs=1"], ["--splits", "2"], ["--seeds", "2"],
        ["--no-controls"], ["--strict-signals"], ["--workers", "2"], ["--backend", "ray"], ["--ray-address", "auto"],
        ["--out", "elsewhere"],
    ],
)  # fmt: skip
def test_what_is_about_trials_is_refused_of_runs(tmp_path, capsys, flags):
    one, two = run(tmp_path / "a", {0: 0.9}), run(tmp_path / "b", {0: 0.8})
    assert main(["compare", one, two, *flags]) == 2
    assert f"{flags[0]}: runs are compared as they are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--equal", "nan"], "nan is no margin"),
        (["--equal", "-1"], "-1 is no margin"),
        (["--equal", "0.5"], "0.5 is no margin"),
    ],
)
def test_a_margin_that_is_none_is_refused_of_runs(tmp_path, capsys, flags, said):
    one, two = (run(tmp_path / name, {0: 0.9, 1: 0.92}) for name in "ab")
    assert main(["compare", one, two, *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_run_is_not_compared_with_itself(tmp_path, capsys):
    one = run(tmp_path / "a", {0: 0.9, 1: 0.92})
    assert main(["compare", one, f"{one}/../a"]) == 2
    assert "is given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"agents": 3}, {"agents": {"s": 3}}, {"agents": {"s": {"role": "student", "metrics": {"test": 7}}}},
        {"agents": {"s": {"role": "student", "metrics": {"test": {"accuracy": "much"}}}}}, {"controls": 1e308},
        {"agents": {"s": {"role": "student", "metrics": {"test": {"accuracy": 10**400}}}}},
    ],
)  # fmt: skip
def test_an_edited_summary_is_refused_in_words(tmp_path, capsys, change):
    one, two = (run(tmp_path / name, {0: 0.9}) for name in "ab")
    summary = tmp_path / "b" / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), **change}))
    assert main(["compare", one, two]) == 2
    assert "written" in capsys.readouterr().err


def test_trials_without_a_finite_figure_are_counted(tmp_path, capsys):
    one = run(tmp_path / "a", {0: 0.90, 1: 0.92, 2: 0.91})
    two = run(tmp_path / "b", {0: 0.80, 1: float("nan"), 2: 0.79}, "two")
    assert main(["compare", one, two]) == 0
    assert "Trials without a finite figure: 1 of two." in capsys.readouterr().out
