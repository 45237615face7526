from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

from kdmesh.cli import _parsers, main
from kdmesh.errors import MeshError, RunFailed
from kdmesh.plugins import registry
from kdmesh.spec.read import bundled

HEAVY = ("torch", "ray", "pydantic", "networkx", "numpy", "sklearn", "yaml", "pluggy")

ENSEMBLE = """
data: digits
agents: {t1: {model: mlp}, t2: {model: mlp}, student: {model: mlp}}
connect: [{ensemble: {teachers: [t1, t2], student: student, objective: kl}}]
"""


def python(code, *args):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)


@pytest.fixture
def mesh(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("agents:\n  a: {model: mlp}\n", encoding="utf-8")
    return path


@pytest.fixture
def command(monkeypatch):
    """Let a command do what a test says."""

    def replace(execute):
        monkeypatch.setattr("kdmesh.cli.schema.execute", execute)
        return ["schema"]

    return replace


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["run", "--help"], ["plugins", "--help"]])
def test_help_imports_nothing_heavy(argv):
    code = f"""
import sys
from kdmesh.cli import _parsers, main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0
assert not set(sys.modules) & set({HEAVY!r}), sys.modules.keys() & set({HEAVY!r})
"""
    done = python(code, *argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kdmesh" in done.stdout


def test_every_help_fits_in_eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    waiting, seen = [_parsers()[0]], 0
    while waiting:
        parser, seen = waiting.pop(), seen + 1
        assert max(map(len, parser.format_help().splitlines())) <= 80, parser.prog
        for action in parser._actions:
            waiting += (action.choices or {}).values() if isinstance(action, argparse._SubParsersAction) else []
    assert seen > 20


def test_listing_imports_neither_torch_nor_ray_nor_networkx():
    code = """
import sys
from kdmesh.cli import _parsers, main
assert main(["plugins"]) == main(["schema"]) == main(["topologies"]) == 0
assert not {"torch", "ray", "networkx", "numpy", "sklearn"} & set(sys.modules)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_an_error_exits_2_with_path_and_suggestion_and_no_traceback(mesh):
    mesh.write_text("agents:\n  a: {modle: mlp}\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "kdmesh", "check", str(mesh)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"kdmesh: error: {mesh}: agents.a.modle: unknown field\n")
    assert "did you mean 'model'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_bad_override_exits_2(mesh, capsys):
    assert main(["plan", str(mesh), "--set", "train.epoch=3"]) == 2
    told = capsys.readouterr().err
    assert f"{mesh}: train.epoch: unknown field" in told
    assert "did you mean 'epochs'?" in told


def test_a_missing_file_exits_2(capsys):
    assert main(["run", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith("kdmesh: error: nowhere.yaml: no such file")


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (MeshError("no", where="agents.a", instead="yes"), 2, "kdmesh: error: agents.a: no\n  instead: yes\n"),
        (RunFailed("loss is NaN"), 1, "kdmesh: error: loss is NaN\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(command, capsys, raised, code, told):
    def execute(args):
        raise raised

    assert main(command(execute)) == code
    assert capsys.readouterr().err == told


def test_a_reader_that_goes_away_is_no_noise():
    code = """
import os, sys
from kdmesh.cli import _parsers, main
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
sys.exit(main(["schema"]))
"""
    done = python(code)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    "argv", [[], ["rnu"], ["run"], ["run", "x", "--seeds", "0"], ["plan", "x", "--json", "--expand"]]
)
def test_wrong_usage_exits_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: kdmesh" in capsys.readouterr().err


def test_plugins_lists_every_offer(capsys):
    assert main(["plugins", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"kl"} <= {offer["name"] for offer in listed if offer["kind"] == "objectives"}
    assert main(["plugins", "--kind", "models"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]  # the rest is folded
    assert [line.split()[:2] for line in lines] == [["models", name] for name in registry().names("models")]


def test_an_unknown_kind_suggests_one(capsys):
    assert main(["plugins", "--kind", "modles"]) == 2
    assert "did you mean 'models'?" in capsys.readouterr().err


def test_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "MeshSpec"


def test_topologies_lists_the_bundled_meshes(capsys):
    assert main(["topologies", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(bundled())


def test_the_expanded_plan_is_a_mesh_that_expands_to_itself(mesh, capsys):
    mesh.write_text(ENSEMBLE, encoding="utf-8")
    assert main(["plan", str(mesh), "--expand", "--set", "connect.0.ensemble.objective.kl.temperature=3"]) == 0
    expanded = capsys.readouterr().out
    assert "connect" not in expanded
    assert "temperature: 3" in expanded
    mesh.write_text(expanded, encoding="utf-8")
    assert main(["plan", str(mesh), "--expand"]) == 0
    assert capsys.readouterr().out == expanded


def test_plan_prints_text_or_json(mesh, capsys):
    mesh.write_text(ENSEMBLE, encoding="utf-8")
    assert main(["plan", str(mesh)]) == 0
    assert "student" in capsys.readouterr().out
    assert main(["plan", str(mesh), "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_run_hands_its_arguments_to_the_launcher(mesh, monkeypatch, tmp_path):
    from kdmesh.cli import running

    calls = []
    monkeypatch.setattr(running, "launch", lambda *given: calls.append(given) or 0)
    argv = [
        "run",
        str(mesh),
        "--backend",
        "inline",
        "--out",
        str(tmp_path),
        "--seed",
        "7",
        "--set",
        "seed=3",
        "--controls",
        "--measure",
    ]
    assert main(argv) == 0
    ((request, quiet, measured),) = calls
    assert measured
    assert request.spec.seed == 7
    assert (request.backend, request.ray_address, request.out) == ("inline", None, tmp_path)
    assert request.source_text == mesh.read_text(encoding="utf-8")
    assert request.beside[0] == str(mesh.parent) and not request.strict_signals
    assert (request.checkpoint_seconds, request.progress_timeout, request.resume) == (60, 600, None)
    assert (request.seeds, request.controls, quiet) == (1, True, False)
