"""The command line: one small module per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import gc
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from kdmesh.cli import (
    audit,
    check,
    compare,
    draw,
    evaluate,
    export,
    find_rate,
    forget,
    label,
    ledger,
    lineage,
    offered,
    party,
    personal,
    plan,
    plugins,
    predict,
    report,
    resume,
    run,
    runs,
    schema,
    select,
    sign,
    store,
    sweep,
    topologies,
    verify,
    watch,
)
from kdmesh.cli.common import traced, working_folder
from kdmesh.cli.output import complain, in_utf8, printed, steady
from kdmesh.errors import MeshError, printable, shown, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdmesh.offers import CommandOffer

COMMANDS = (
    run, resume, compare, sweep, find_rate, label, select, predict, evaluate, audit, export, report, watch, runs, store,
    party, ledger, personal, forget, plan, draw, check, schema, topologies, lineage,
    sign, verify, plugins,
)  # fmt: skip
"""Modules with ``add(subparsers)``, which is cheap, and ``execute(args) -> int``, which imports what it needs."""
WORK = tuple(one.execute for one in (run, resume, compare, sweep, find_rate, label))  # they do more than to print
SHORT = tuple(
    one.execute
    for one in (runs, store, ledger, personal, plan, draw, check, schema, topologies, lineage, verify, plugins)
)
"""What they make is small, and nearly all of it lives until they end: to look for garbage takes time for nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done; 1: the run failed; 2: the input is wrong (also argparse's own); 130: Ctrl-C; 141: the reader of the output
    went away. Errors a user can act on go to stderr without a traceback. Printing never ends a run: see `output.py`.
    """
    if argv is None:
        in_utf8()
    words = sys.argv[1:] if argv is None else list(argv)
    with steady() as out:
        top, commands = _parsers()
        asked: list[CommandOffer] = []

        def add() -> int:
            asked.extend(filter(None, [offered.asked(words, commands)]))
            return 0

        if code := _caught(add):
            return printed(out, code, False)
        args = top.parse_args(words)
        execute = partial(offered.run, asked[0]) if asked else args.execute
        if argv is None and execute in SHORT:  # the process is this command's
            gc.disable()
        with traced(getattr(args, "traceback", False)):
            code = _caught(partial(_execute, execute, args), getattr(args, "file", ""))
        return printed(out, code, execute in WORK)


def _execute(execute: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run the command."""
    if not working_folder():  # torch ends a process there
        raise MeshError("the working folder is gone", instead="cd to a folder that is there")
    return int(execute(args))


def _caught(call: Callable[[], int], file: str = "") -> int:
    """The exit code of a call; an error becomes a line on stderr and one. ``file``: that of the mesh, if there is."""
    try:
        return call()
    except MeshError as error:
        if error.where and not error.file:
            error.file = file
        complain("\n".join([f"kdmesh: error: {error}", *getattr(error, "__notes__", ())]))
        if wanted():
            print(printable(shown(error).strip("\n")), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        if stop.args:
            complain(f"kdmesh: interrupted; {stop.args[0]}")
        return 130
    except OSError as error:  # of the machine, as a full disk
        from kdmesh.files import reason

        complain(f"kdmesh: error: {reason(error)}")
        return 1


def _parsers() -> tuple[argparse.ArgumentParser, Any]:
    """The parser of all of kdmesh's own commands, and what more are added to."""
    top = argparse.ArgumentParser(
        prog="kdmesh",
        description="A graph of models; knowledge flows along its edges.",
        epilog="Plugins may add commands: kdmesh plugins --kind commands",
    )
    top.add_argument("--version", action=_Version, help="print the version and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return top, commands


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from kdmesh import __version__

        print(f"kdmesh {__version__}")
        parser.exit()
