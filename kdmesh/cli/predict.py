"""``kdmesh predict``: a trained agent's answers to a file of samples."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import add_no_code, add_plugins_dir, use_plugins_dir
from kdmesh.cli.output import complain
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from kdmesh.inference.inputs import Inputs
    from kdmesh.inference.trained import Trained

TOKENS = 64
FORMS = (
    "a table (.csv, .tsv, .jsonl, .parquet), images (a folder, .zip, .tar, or one), texts (.txt, one a line), "
    "arrays (.npy, .npz, .safetensors, IDX), or a folder that `save_to_disk` made"
)
MEASURED = " (default: test)"  # which split is, where labels are read
ROLES = ("text", "pair", "prompt", "query", "candidates", "image")


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Answer each sample of a file by an agent that a run trained. Columns are those that the agent learned from; "
        "others, and labels, are not looked at. Prints CSV, or writes FILE."
    )
    command = commands.add_parser("predict", help="ask a trained agent about a file of samples", description=about)
    add_trained(command, "INPUT", FORMS)
    command.add_argument("-o", "--out", metavar="FILE", help="write a table: FILE.csv, .jsonl or .parquet")
    command.add_argument("--top", metavar="K", type=int, help="the K likeliest classes too, or the K best candidates")
    command.add_argument("--probabilities", action="store_true", help="also the probability of every class")
    command.add_argument(
        "--tokens", metavar="N", type=int, help=f"most tokens of a text that is written (default: {TOKENS})"
    )
    command.set_defaults(execute=execute)


def add_trained(command: argparse.ArgumentParser, data: str, forms: str, split: str = "") -> None:
    """Add an agent's folder, a file of samples in one of ``forms``, and how it is read and where it is computed."""
    add_folder(command)
    command.add_argument("data", metavar=data, help=forms)
    add_reading(command, split)
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or mps (default: %(default)s)")


def add_folder(command: argparse.ArgumentParser) -> None:
    """Add an agent's folder, and what any command does with one."""
    command.add_argument("folder", metavar="DIR", help="an agent's folder: runs/<name>/<time>/agents/<agent>")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_no_code(command)
    add_plugins_dir(command)


def add_reading(command: argparse.ArgumentParser, split: str = "") -> None:
    """Add how a file is read: columns that it calls otherwise than the one that was learned, and which split of it.

    ``split``: which one otherwise, in words.
    """
    for role in ROLES:
        command.add_argument(
            f"--{role}", metavar="COLUMN", help=f"the column of the {role}, where it is called otherwise"
        )
    command.add_argument("--split", metavar="NAME", help=f"of a file or folder that has several{split}")
    command.add_argument("--delimiter", metavar="C", help="between the cells of CSV (default: as the run read its own)")
    command.add_argument("--encoding", metavar="NAME", help="of CSV, latin-1 say (default: as the run read its own)")
    command.add_argument("--root", metavar="DIR", help="from where paths of images lead (default: from their table)")


def add_labels(command: argparse.ArgumentParser) -> None:
    """Add where the labels of a file are."""
    command.add_argument("--label", metavar="COLUMN", help="the column of labels, where it is called otherwise")
    command.add_argument("--labels", metavar="FILE", help="the labels of an array (.npy, IDX)")


def execute(args: argparse.Namespace) -> int:
    """Read, answer, and print or write."""
    use_plugins_dir(args)
    out = None if args.out is None else Path(args.out)
    for name, least in (("top", 1), ("tokens", 1)):
        if (value := getattr(args, name)) is not None and value < least:
            raise MeshError(f"found {value}", where=f"--{name}", instead="a whole number from 1")
    from kdmesh.inference import output
    from kdmesh.inference.predictions import kind_of, predict, refuse, twice

    if out is not None:
        output.refuse(out, Path(args.data))
    trained, inputs = read(args, "INPUT")
    if args.tokens is not None and not trained.writes:
        raise MeshError(f"{trained.config.agent} writes no texts", where="--tokens", instead="without it")
    refuse(kind_of(trained), trained.names, args.top, args.probabilities)
    with progress(len(inputs), args.quiet) as told:
        found = predict(trained, inputs.x, most=args.tokens or TOKENS, told=told)
    note_cut(trained, inputs, found.cut)
    rows = found.rows(args.top, args.probabilities)
    if inputs.noun in rows[0]:
        raise twice(inputs.noun)
    rows = [{inputs.noun: at, **row} for at, row in zip(inputs.places, rows, strict=True)]
    if out is None:
        sys.stdout.write(output.text(rows))
    else:
        output.save(rows, out)
        print(f"{len(rows)} answers of {trained.config.agent} in {out}")
    return 0


def read(args: argparse.Namespace, where: str, labelled: bool = False) -> tuple[Trained, Inputs]:
    """The agent and the samples that the arguments name; ``where``: what the file of samples is called there."""
    from kdmesh.inference.trained import Trained

    trained = Trained.read(args.folder, code=not args.no_code, device=args.device)
    return trained, read_inputs(args, trained, where, labelled)


def read_inputs(args: argparse.Namespace, trained: Trained, where: str, labelled: bool) -> Inputs:
    """The samples that the arguments name, with what was learned of them if they are ``labelled``."""
    from kdmesh.inference.inputs import Asked, read

    named = {role: name for role in ROLES if (name := getattr(args, role, None)) is not None}
    root, labels = (None if (one := getattr(args, name, None)) is None else Path(one) for name in ("root", "labels"))
    if labelled and trained.tags | trained.ranks and args.label is not None:  # its labels are parts of its samples
        named["spans" if trained.tags else "relevance"] = args.label
    asked = Asked(named, labelled, getattr(args, "split", None), root, labels, *_written(args))
    found = read(Path(args.data), trained, asked, where)
    for note in found.notes:
        complain(f"kdmesh: note: {note}")
    return found


def _written(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """The delimiter and the encoding that the arguments name."""
    from kdmesh.tables.kinds import delimiter_of, encoding_of

    delimiter, encoding = (getattr(args, name, None) for name in ("delimiter", "encoding"))
    if delimiter is not None and len(delimiter) != 1:
        raise MeshError(f"found {delimiter!r}", where="--delimiter", instead="one character: ';' or $'\\t', say")
    where = "--delimiter"
    try:
        delimiter, where = delimiter_of(delimiter), "--encoding"
        return delimiter, None if encoding is None else encoding_of(encoding) or "utf-8-sig"
    except ValueError as error:
        raise MeshError(str(error), where=where) from None


def note_cut(trained: Trained, inputs: Inputs, cut: Sequence[int], left_out: bool = False) -> None:
    """Say of which texts the beginning alone was read, or which were ``left_out``."""
    if cut:
        first = f"{inputs.noun} {inputs.places[cut[0]]}"
        most, of = trained.module.encoder.max_length, f"{len(cut):,} of {len(inputs):,} texts, first in {first},"
        done = f"{of} are longer, and left out" if left_out else f"of {of} it read the beginning alone"
        complain(f"kdmesh: note: {trained.config.agent} reads {most} tokens: {done}")


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """What is told how many of ``total`` samples are done; nothing is shown where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
