"""Printing never ends a run, nor hides how it ended."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from kdmesh.cli import output
from kdmesh.cli.output import Steady, printed

MESH = """\
data: {dataset: digits, train: 64, validation: 32, test: 32}
agents: {été: {model: {mlp: {hidden: [4]}}}, 学生: {model: {mlp: {hidden: [4]}}}}
flows: [{from: labels, to: [été, 学生], objective: ce}]
train: {steps: 2}
"""
PLAIN = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}  # a locale that cannot spell these names


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


def command(tmp_path, arguments: str, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a shell, in a folder with a mesh."""
    (tmp_path / "mesh.yaml").write_text(MESH, encoding="utf-8")
    line = f"{sys.executable} -m kdmesh {arguments} {redirect}"
    return subprocess.run(
        line,
        shell=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **environment},
        errors="replace",
    )


def finished(tmp_path) -> set[str]:
    """The agents of the one run that stands in a folder, whole."""
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert {path.name for path in (folder / "agents").iterdir()} == {"été", "学生"}
    return set(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["agents"])


@pytest.mark.parametrize(
    ("redirect", "locale"),
    [
        pytest.param(">/dev/full", {}, marks=pytest.mark.slow),
        pytest.param(">&-", {}, marks=pytest.mark.slow),
        pytest.param(">/dev/full 2>/dev/full", {}, marks=pytest.mark.slow),
        pytest.param("", PLAIN, marks=pytest.mark.slow),
        (">/dev/full", PLAIN),
    ],
)
def test_a_run_ends_as_its_training_deserves_wherever_it_prints(tmp_path, redirect, locale):
    done = command(tmp_path, "run mesh.yaml --backend inline", redirect, **locale)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert finished(tmp_path) == {"été", "学生"}
    if redirect == ">/dev/full":
        assert "output could not be written: No space left on device" in done.stderr
    if not redirect:
        assert r"\u5b66\u751f" in done.stdout


def test_a_locale_that_cannot_spell_a_name_ends_nothing(tmp_path):
    done = command(tmp_path, "plan mesh.yaml", **PLAIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u5b66\u751f" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "redirect", "code", "said"),
    [
        ("plan mesh.yaml", ">/dev/full", 1, "kdmesh: the output could not be written: No space left on device\n"),
        pytest.param("plan mesh.yaml", ">&-", 0, "", marks=pytest.mark.slow),
        ("plan mesh.yaml", ">&- 2>&-", 0, ""),
        ("plan nothing.yaml", ">/dev/full 2>/dev/full", 2, ""),
    ],
)
def test_a_command_that_only_prints_says_that_it_could_not(tmp_path, arguments, redirect, code, said):
    done = command(tmp_path, arguments, redirect)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_working_folder_that_is_gone_is_said_in_one_line(tmp_path):
    (tmp_path / "here").mkdir()
    line = f"cd here && rmdir ../here && {sys.executable} -m kdmesh plan {tmp_path / 'mesh.yaml'}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=tmp_path)
    said = "kdmesh: error: the working folder is gone\n  instead: cd to a folder that is there\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("number", [28, 32, 5])
def test_a_stream_that_fails_takes_no_more_and_says_why(capsys, number):
    stream = Steady(Broken(number))
    assert stream.write("a") == 1
    stream.writelines(["b", "c"])
    print("d", file=stream)
    stream.flush()
    assert stream.failed is not None and stream.failed.errno == number
    assert printed(stream, 0, work=True) == 0
    assert printed(stream, 3, work=True) == 3 and printed(stream, 2, work=False) == 2
    assert "could not be written" in capsys.readouterr().err
    assert printed(stream, 0, work=False) == (141 if number == 32 else 1)


def test_what_an_encoding_lacks_is_escaped():
    raw = io.BytesIO()
    stream = Steady(io.TextIOWrapper(raw, encoding="latin-1"))
    print("été 学 \udcff", file=stream)
    stream.flush()
    assert raw.getvalue() == b"\xe9t\xe9 \\u5b66 \\udcff\n" and stream.encoding == "latin-1"


def test_closed_streams_lead_nowhere_and_are_put_back(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with output.steady() as out:
        print("lost")
        assert out.failed is None
    assert sys.stdout is None
