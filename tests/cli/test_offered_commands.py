"""Commands of plugins: found where a command line asks for one, named where they fail, and read at no other time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kdmesh import cli, plugins
from kdmesh.cli import main

OFFERS = """
import kdmesh
from kdmesh.offers import CommandOffer

@kdmesh.hookimpl
def kdmesh_commands():
    return [CommandOffer({name!r}, "greet_command:{add}", summary="say hello")]
"""
COMMAND = """
import os
from kdmesh.errors import MeshError


def add(commands):
    parser = commands.add_parser("greet", help="say hello")
    parser.add_argument("whom")
    parser.add_argument("--how", default="well")
    parser.set_defaults(execute=execute)


def execute(args):
    if args.how == "wrong":
        raise MeshError("nobody is called that", where="whom", instead="another name")
    if args.how == "badly":
        raise ValueError("tired")
    if args.how == "mute":
        return None
    if args.how == "unheard":
        raise OSError(28, "No space left on device")
    print(f"hello, {args.whom}")
    return 3 if args.how == "loudly" else 0


def add_another(commands):
    commands.add_parser("gruess")


def add_two(commands):
    add(commands)
    add_another(commands)


def add_nothing_to_do(commands):
    commands.add_parser("greet")


def add_none(commands):
    raise KeyError("greet")
"""


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """A folder with a plugin, one file, that offers a command of a name, which a function of `greet_command` adds."""
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path / "plugins"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "greet_command.py").write_text(COMMAND)

    def write(add="add", name="greet"):
        (tmp_path / "plugins" / "greet_plugin.py").write_text(OFFERS.format(name=name, add=add))
        plugins.current._registry.cache_clear()
        return str(tmp_path / "plugins" / "greet_plugin.py")

    yield write
    for module in ("greet_plugin", "greet_command"):
        sys.modules.pop(module, None)
    plugins.current._registry.cache_clear()


def test_a_command_runs_with_its_arguments_and_gives_its_code(offer, capsys):
    offer()
    assert main(["greet", "you"]) == 0
    assert main(["greet", "you", "--how", "loudly"]) == 3
    assert capsys.readouterr().out == "hello, you\nhello, you\n"
    with pytest.raises(SystemExit) as ended:
        main(["greet"])
    assert ended.value.code == 2 and "usage: kdmesh greet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("wrong", 2, "kdmesh: error: whom: nobody is called that\n  instead: another name"),
        ("badly", 1, "the command 'greet' of {dist} failed to run: ValueError: tired (greet_command.py, line 17)"),
        ("mute", 1, "the command 'greet' of {dist} failed to run: RuntimeError: execute gave None, not an exit code"),
        ("unheard", 1, "the command 'greet' of {dist} failed to run: OSError: [Errno 28] No space left on device"),
    ],
)
def test_an_error_is_a_line_that_names_the_plugin(offer, capsys, how, code, said):
    dist = offer()
    assert main(["greet", "you", "--how", how]) == code
    err = capsys.readouterr().err
    assert said.format(dist=dist) in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("add", "said"),
    [
        ("add_another", "it added 'gruess', not 'greet' alone"),
        ("add_two", "it added 'greet', 'gruess', not 'greet' alone"),
        ("add_none", "failed to be added: KeyError: 'greet'"),
        ("add_nowhere", "has no attribute 'add_nowhere'"),
        ("add_nothing_to_do", "failed to run: RuntimeError: it sets no execute(args)"),
    ],
)
def test_a_command_that_is_not_what_its_offer_says_is_named(offer, capsys, add, said):
    dist = offer(add)
    assert main(["greet"]) == 1
    err = capsys.readouterr().err
    assert f"the command 'greet' of {dist}" in err and said in err


def test_a_name_of_kdmeshs_own_is_refused_and_named(offer, capsys):
    dist = offer(name="runs")
    assert main(["runs", "nowhere-at-all"]) in (0, 2)  # its own
    capsys.readouterr()
    assert main(["plugins", "--strict"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"shadowed: greet_plugin of {dist} (offers the command 'runs', which is built in" in said


def test_the_names_that_are_taken_are_those_of_the_commands():
    _, commands = cli._parsers()
    assert tuple(commands.choices) == plugins.COMMANDS


def test_a_switch_leaves_the_command_out(offer, capsys, monkeypatch):
    offer()
    monkeypatch.setenv("KDMESH_PLUGINS", "")
    with pytest.raises(SystemExit) as ended:
        main(["greet", "you"])
    assert ended.value.code == 2 and "invalid choice: 'greet'" in capsys.readouterr().err


def test_what_is_broken_is_named_where_a_command_is_unknown(offer, capsys, tmp_path):
    offer()
    (tmp_path / "plugins" / "other_plugin.py").write_text("import nowhere_at_all\n")
    plugins.current._registry.cache_clear()
    with pytest.raises(SystemExit):
        main(["gret", "you"])
    assert "plugin 'other_plugin'" in capsys.readouterr().err


def test_commands_are_listed(offer, capsys):
    offer()
    assert main(["plugins", "--kind", "commands"]) == 0
    assert "greet" in capsys.readouterr().out


def test_no_plugin_is_read_for_help_or_for_a_command_of_kdmeshs_own():
    """`kdmesh --help` is as fast with plugins as without."""
    probe = (
        "import sys; from kdmesh.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print({'pluggy', 'pydantic', 'kdmesh.plugins', 'torch'} & {*sys.modules}, file=sys.stderr)"
    )
    for words in (["--help"], ["run", "--help"], []):
        done = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True)
        assert done.stderr.endswith("set()\n"), done.stderr
