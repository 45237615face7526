"""What several commands share: the mesh argument, how it is read, and where a run takes place."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh.errors import TRACEBACK, MeshError
from kdmesh.files import found_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec


def add_mesh(command: argparse.ArgumentParser) -> None:
    """Add ``FILE``, ``--set`` and ``--plugins-dir`` to a command."""
    command.add_argument("file", metavar="FILE", help="a mesh in YAML, or the name of a bundled one")
    command.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="change a field, e.g. train.epochs=3 or flows.0.weight=0.5 (repeatable)",
    )
    add_plugins_dir(command)


def add_plugins_dir(command: argparse.ArgumentParser) -> None:
    """Add ``--plugins-dir`` to a command."""
    command.add_argument("--plugins-dir", metavar="DIR", help="also load each *.py of this folder as a plugin")


def add_no_code(command: argparse.ArgumentParser) -> None:
    """Add ``--no-code`` to a command that imports what a mesh names."""
    command.add_argument("--no-code", action="store_true", help="refuse a mesh that names code (`module:Name`)")


def allow_code(mesh: MeshSpec, args: argparse.Namespace) -> None:
    """Refuse a mesh that names code, if that is asked for, before anything is imported."""
    from kdmesh.spec.code import refuse_code

    if args.no_code:
        refuse_code(mesh)


def add_backend(command: argparse.ArgumentParser, default: str) -> None:
    """Add where a run takes place (in words: where by default), and what is shown and kept while it does."""
    where = f"where models live: in this process, or in processes of Ray; by default {default}"
    command.add_argument("--backend", choices=("inline", "ray"), help=where)
    command.add_argument("--ray-address", metavar="A", help="join this Ray cluster; by default a local one is started")
    command.add_argument(
        "--checkpoint-seconds",
        metavar="S",
        type=seconds,
        default=60.0,
        help="age in seconds at which a checkpoint is written during training (default: %(default)g)",
    )
    command.add_argument(
        "--progress-timeout",
        metavar="S",
        type=seconds,
        default=600.0,
        help="time without a result after which a host counts as lost; 0: never (default: %(default)g)",
    )
    command.add_argument("--no-report", action="store_true", help="write no report.html at the end")
    command.add_argument("--quiet", action="store_true", help="print only the result")


def add_strict_signals(command: argparse.ArgumentParser) -> None:
    """Add ``--strict-signals`` to a command that trains."""
    command.add_argument(
        "--strict-signals", action="store_true", help="stop at a consensus of NaN, wrong shape, or no distribution"
    )


def add_store(command: argparse.ArgumentParser) -> None:
    """Add ``--store`` to a command that trains."""
    command.add_argument(
        "--store",
        metavar="DIR",
        help="keep what frozen and finished agents answer in this folder, for every later run; off: nowhere "
        "(default: $KDMESH_STORE, else in the user's cache folder)",
    )


def add_privacy(command: argparse.ArgumentParser, of: str) -> None:
    """Add where accounts of parties with a privacy budget are."""
    command.add_argument(
        "--privacy",
        metavar="FOLDER",
        help=f"of {of} with a privacy budget: where `kdmesh ledger new` has made the secret and the ledger",
    )


def add_traceback(command: argparse.ArgumentParser) -> None:
    """Add ``--traceback`` to a command that calls what plugins offer."""
    command.add_argument(
        "--traceback", action="store_true", help=f"where a plugin fails, print its own frames; as {TRACEBACK}=1 does"
    )


def add_asking(command: argparse.ArgumentParser, result: str) -> None:
    """Add what a command has that trains or asks a mesh's agents and writes no run; ``result``: in words."""
    command.add_argument("--seed", metavar="N", type=int, help="run seed; short for --set seed=N")
    add_no_code(command)
    add_store(command)
    command.add_argument("--json", action="store_true", help=f"{result} as JSON")
    command.add_argument("--quiet", action="store_true", help="print only the result")
    add_traceback(command)


@contextmanager
def traced(asked: bool) -> Iterator[None]:
    """Have frames of plugins printed beside errors meanwhile, if that is ``asked`` for."""
    before = os.environ.get(TRACEBACK)
    if asked:
        os.environ[TRACEBACK] = "1"
    try:
        yield
    finally:
        if asked:
            os.environ.pop(TRACEBACK)
            os.environ.update({} if before is None else {TRACEBACK: before})


def add_measure(command: argparse.ArgumentParser, when: str) -> None:
    """Add ``--measure`` to a command; ``when``: in words."""
    command.add_argument(
        "--measure",
        action="store_true",
        help=f"{when} how long each agent takes to answer 1 sample and 64, in fresh processes, a few seconds each",
    )


def seconds(text: str) -> float:
    """Read a span of time; argparse puts this function's name into its message."""
    from kdmesh.spec.numbers import seconds as refuse

    number = float(text)
    try:
        refuse(number, "")
    except MeshError as error:
        raise argparse.ArgumentTypeError(f"{text} is not a number of {error.instead}") from None
    return number


def use_plugins_dir(args: argparse.Namespace) -> None:
    """Let the registry of this process, and of the processes it starts, find the folder of plugins."""
    if args.plugins_dir is not None:
        if (what := found_at(args.plugins_dir)) != "folder":
            what = "is a file, not a folder" if what == "file" else what
            file = args.plugins_dir or "''"
            raise MeshError(what, file=file, where="--plugins-dir", instead="a folder of single-file plugins")
        folder = Path(args.plugins_dir)
        if not any(folder.glob("[!_]*.py")):
            package = (folder / "pyproject.toml").is_file() or (folder / "__init__.py").is_file()
            where = folder if (folder / "pyproject.toml").is_file() else folder.resolve().parent
            raise MeshError(
                "holds a package, not single files"
                if package
                else "holds no *.py file, but for those that begin with _",
                file=args.plugins_dir,
                where="--plugins-dir",
                instead=f"install the package, `pip install -e {where}`"
                if package
                else "a folder of single-file plugins",
            )
        os.environ["KDMESH_PLUGINS_DIR"] = str(Path(args.plugins_dir).resolve())


def read(args: argparse.Namespace) -> MeshSpec:
    """Read the mesh that the arguments name; `module:Name` in it may be code beside the file, or where we are.

    Such code comes after what is installed: a file called `random.py` there must not take the standard one's place.
    Plugins that have a problem are named on stderr here, where a mesh may want them, and in no listing or help.
    """
    from kdmesh.plugins import registry
    from kdmesh.spec.read import read_mesh

    use_plugins_dir(args)
    registry().warn()
    mesh = read_mesh(args.file, args.overrides)
    import_from(beside(args.file))
    return mesh


def beside(file: str) -> list[str]:
    """Where code that a mesh names may be: the folder of its file, and where we are."""
    return [*([str(Path(file).resolve().parent)] if Path(file).is_file() else []), *working_folder()]


def working_folder() -> list[str]:
    """Where we are, in a list; an empty one where that folder is gone."""
    try:
        return [os.getcwd()]
    except OSError:
        return []


def import_from(folders: Sequence[str]) -> None:
    """Find modules in these folders too, after everything that is installed."""
    sys.path += [folder for folder in folders if folder not in sys.path]


def asked(args: argparse.Namespace) -> MeshSpec:
    """Read the mesh of a command with :func:`add_asking`; refuse what no run would do, and code where none may be."""
    if args.seed is not None:
        args.overrides = [*args.overrides, f"seed={args.seed}"]
    spec = read(args)
    understood(spec)
    allow_code(spec, args)
    return spec


def planned(args: argparse.Namespace) -> Plan:
    """Read the mesh that the arguments name, and plan it."""
    return understood(read(args))


def understood(spec: MeshSpec) -> Plan:
    """Plan a mesh, and refuse what no run would do."""
    from kdmesh.graph.planner import make_plan
    from kdmesh.graph.unrun import refuse_unrun
    from kdmesh.plugins import registry

    plan = make_plan(spec, registry())
    refuse_unrun(plan, registry())
    return plan
