from __future__ import annotations

import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from kdmesh.cli import main


@pytest.fixture
def run(tmp_path):
    """A finished run's folder, as far as a drawing reads it."""
    folder = tmp_path / "runs" / "three"
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").write_text("agents: {a: {model: mlp}, b: {model: mlp}}\n", encoding="utf-8")
    manifest = {"mesh": {"name": "three"}, "seed": 0, "begun": {"seeds": 1}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    summary = {"agents": {"a": {"parameters": 1234}, "b": {"parameters": None}}}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def test_draws_in_the_terminal(capsys):
    assert main(["draw", "ensemble"]) == 0
    out, err = capsys.readouterr()
    assert "│ wide " in out and "c ──▶ student" in out and "\x1b" not in out and err == ""


def test_colour_is_for_terminals_that_want_it(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["draw", "ensemble"]) == 0
    coloured = capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["draw", "ensemble"]) == 0
    plain = capsys.readouterr().out
    assert "\x1b[36m" in coloured and "\x1b[36m" not in plain


def test_a_terminal_without_block_characters(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    assert main(["draw", "parties"]) == 0
    out.flush()
    text = out.buffer.getvalue().decode("ascii")
    assert "+-----" in text and "party[0..5] x 6 --> c" in text and "\\u" not in text


@pytest.mark.parametrize(
    ("ending", "begin"), [("svg", "<svg "), ("mmd", "flowchart TB"), ("dot", "digraph"), ("txt", "ring\n")]
)
def test_writes_the_format_of_the_ending(tmp_path, capsys, ending, begin):
    path = tmp_path / f"ring.{ending}"
    assert main(["draw", "ring", "-o", str(path), "--set", "train.epochs=1"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_text(encoding="utf-8").startswith(begin)
    assert main(["draw", "ring", "--format", "svg"]) == 0
    assert ET.fromstring(capsys.readouterr().out).get("class") == "kdmesh"


def test_a_run_has_sizes(run, capsys):
    assert main(["draw", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.count("1,234 parameters") == 1
    seed = run / "seeds" / "0"
    seed.mkdir(parents=True)
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    (seed / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (run / "manifest.json").write_text(json.dumps({**manifest, "begun": {"seeds": 2}}), encoding="utf-8")
    for name in ("summary.json", "resolved.yaml"):
        (run / name).rename(seed / name)
        assert main(["draw", str(run)]) == 0
        assert capsys.readouterr().out == out
    (seed / "resolved.yaml").unlink()
    assert main(["draw", str(run)]) == 2 and "has no resolved.yaml yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ring", "-o", "x.jpg"], "names no format"),
        (["ring", "-o", "x"], "has no ending"),
        (["ring", "--format", "png"], "-o PATH.png"),
        (["ring", "--graphviz"], "--graphviz: Graphviz lays out pictures"),
        (["ring", "-o", "/nowhere/x.svg"], "there is no folder '/nowhere'"),
        (["ring", "-o", "/", "--format", "svg"], "is a folder"),
        ([str(Path(__file__).parent)], "is not a run's folder"),
        (["rong"], "did you mean 'ring'"),
    ],
)
def test_mistakes_are_named(capsys, arguments, said):
    assert main(["draw", *arguments]) == 2
    out, err = capsys.readouterr()
    assert said in err and out == ""


def test_is_drawn_without_torch(tmp_path):
    code = "import sys; from kdmesh.cli import main; main(sys.argv[1:]); print({'torch', 'ray'} & set(sys.modules))"
    arguments = ["draw", "council", "-o", str(tmp_path / "a.svg")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
