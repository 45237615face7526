"""Paths that are not what a command expects: one plain message, exit code 2, no wait, and no sign a terminal obeys."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from kdmesh.cli import main
from kdmesh.cli.output import Steady
from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import found_at
from kdmesh.spec.read import bundled

COMMANDS = {
    "plan": ["plan"],
    "check": ["check"],
    "run": ["run"],
    "resume": ["resume"],
    "watch": ["watch"],
    "ledger show": ["ledger", "show"],
    "ledger verify": ["ledger", "verify"],
    "run --out": ["run", "single-teacher", "--set", "train.steps=1", "--backend", "inline", "--out"],
    "plugins --plugins-dir": ["plugins", "--plugins-dir"],
    "plan --plugins-dir": ["plan", "single-teacher", "--plugins-dir"],
    "plugins show": ["plugins", "show"],
    "plan --set": ["plan", "single-teacher", "--set"],
}
ODD = [
    "missing", "file", "folder", "dangling", "circle", "pipe", "/dev/null", "/dev/zero", "empty", "binary", "zeros",
    "large", "two\nlines\x1b[31m.yaml", "latin", os.fsdecode(b"\xff\xfe.yaml"), "escapes", "escaped", "a name",
    "x" * 300, "x" * 5000, "", ".", "~", "file/below", "\x1b]0;title\x07", "\u202egnp", "folder/missing",
]  # fmt: skip
FINE = {
    ("run --out", name)
    for name in ODD
    if name not in ("file", "dangling", "circle", "pipe", "/dev/null", "x" * 300, "", "file/below")
} | {("plugins --plugins-dir", "folder"), ("plan --plugins-dir", "folder")}
FINE |= {(one, ".") for one in ("plugins --plugins-dir", "plan --plugins-dir")}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    (root / "file").write_text("agents: {a: {model: nosuch}}\n", encoding="utf-8")
    (root / "folder").mkdir()
    (root / "dangling").symlink_to("nowhere")
    (root / "circle").symlink_to("circle")
    os.mkfifo(root / "pipe")
    (root / "empty").touch()
    (root / "binary").write_bytes(bytes(range(256)) * 16)
    (root / "zeros").write_bytes(b"a: \0\n")
    with (root / "large").open("wb") as file:
        file.truncate(100_000_000)
    (root / "two\nlines\x1b[31m.yaml").write_text("agents: 3\n", encoding="utf-8")
    (root / "latin").write_bytes(b"name: \xe9t\xe9\n")
    Path(root, os.fsdecode(b"\xff\xfe.yaml")).write_text("agents: 3\n", encoding="utf-8")
    (root / "escapes").write_bytes(b"a: \x1b[31m\n")
    (root / "escaped").write_bytes(b'"\\e[31mred": 3\n')
    (root / "a name").write_bytes(b'agents: {"\\e[31m\\n": {model: mlp}}\n')
    return root


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_what_a_command_expects_is_told_plainly(
    command: str, odd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(odd)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ODD:
        if (command, name) in FINE:
            continue
        monkeypatch.setenv("KDMESH_PLUGINS_DIR", "")  # put back at the end
        code = main([*COMMANDS[command], name])
        out, said = capsys.readouterr()
        assert code == 2, (name, out, said)
        assert said.startswith("kdmesh: error: ") and not out, name
        for odd_sign in ("Traceback", "Errno", "\x1b", "\0", "\x07", "\u202e"):
            assert odd_sign not in said, (name, said)
        assert len(said) < 8000 and said.count("\n") < 12, name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "does not exist"),
        ("file", "file"),
        ("folder", "folder"),
        ("dangling", "is a link to 'nowhere', which does not exist"),
        ("circle", "is a cycle of links"),
        ("pipe", "is a named pipe"),
        ("/dev/null", "is a device"),
        ("x" * 300, "is no path: it is too long"),
        ("", "is no path: it is empty"),
        ("\0", "is no path: it has a zero byte in it"),
    ],
)
def test_what_stands_at_a_path_is_said(name: str, words: str, odd: Path) -> None:
    assert found_at(str(odd / name) if name and name[0] not in "/\0" else name) == words


def test_signs_that_a_terminal_obeys_are_escaped_in_messages() -> None:
    error = MeshError("red \x1b[31m\nand more", where="a\nb", instead="\u202ex\x9b", file="caf\u00e9 \u4e2d \U0001f600")
    assert str(error) == ("caf\u00e9 \u4e2d \U0001f600: a\\nb: red \\x1b[31m\nand more\n  instead: \\u202ex\\x9b")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_messages_fit_it(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(odd)
    seen = Terminal()
    monkeypatch.setattr(sys, "stderr", Steady(seen))
    assert main(["plan", "folder"]) == 2
    lines = seen.getvalue().splitlines()
    assert len(lines) > 2 and max(map(len, lines)) <= 80 and lines[-1].endswith(max(bundled()))


def test_an_error_of_the_machine_is_told_without_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object) -> int:
        raise OSError(28, "No space left on device", "runs/x\x1b[31m")

    monkeypatch.setattr("kdmesh.cli.plan.execute", full)
    assert main(["plan", "council"]) == 1
    assert capsys.readouterr().err == "kdmesh: error: runs/x\\x1b[31m: No space left on device\n"


def test_notes_are_escaped_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: object) -> int:
        error = RunFailed("the run broke")
        error.add_note("what was learned is in runs/x\x1b[31m")
        raise error

    monkeypatch.setattr("kdmesh.cli.plan.execute", broken)
    assert main(["plan", "council"]) == 1
    assert capsys.readouterr().err.endswith("runs/x\\x1b[31m\n")
