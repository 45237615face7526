"""``kdmesh run``: train a mesh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kdmesh.cli.common import (
    add_backend,
    add_measure,
    add_mesh,
    add_no_code,
    add_privacy,
    add_store,
    add_strict_signals,
    add_traceback,
    allow_code,
    beside,
    read,
    understood,
)
from kdmesh.cli.coordinating import add_joining, coordinate, refuse_joining
from kdmesh.contracts.run_files import MOST_SEEDS
from kdmesh.errors import MeshError
from kdmesh.files import found_at


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser("run", help="train a mesh", description="Train a mesh and write its run folder.")
    add_mesh(command)
    add_no_code(command)
    add_backend(command, "this process where that is fastest")
    add_measure(command, "at the end, measure")
    command.add_argument(
        "--out",
        metavar="DIR",
        default="runs",
        help="parent folder (default: %(default)s), or a URL (s3://bucket/runs) where the folder is taken at the end",
    )
    command.add_argument(
        "--seed", metavar="N", type=int, help="run seed: initial weights, order, dropout; short for --set seed=N"
    )
    command.add_argument(
        "--data-seed", metavar="N", type=int, help="data seed: splits, subsets, shards; short for --set data.seed=N"
    )
    command.add_argument(
        "--seeds",
        metavar="N",
        type=count,
        default=1,
        help="train with so many run seeds, on one split (default: %(default)s)",
    )
    command.add_argument(
        "--controls",
        action="store_true",
        help="also train students alone, and by the best teacher only; of private samples averaged, and pooled",
    )
    command.add_argument(
        "--from",
        dest="beginning",
        metavar="DIR",
        help="begin with the weights that agents of the same names had at the end of this run, runs/<name>/<time>",
    )
    command.add_argument(
        "--parties",
        choices=("simulated", "remote"),
        default="simulated",
        help="of a mesh with parties: all in this run (the default), or each a process that joins: see `kdmesh party`",
    )
    command.add_argument(
        "--attendance",
        metavar="DIR",
        help="of a mesh with `participation`: who took part in each round of this run, runs/<name>/<time>, does again",
    )
    add_joining(command)
    add_strict_signals(command)
    add_store(command)
    add_privacy(command, "simulated parties")
    command.add_argument(
        "--profile-plugins",
        action="store_true",
        help="at the end, print how long each objective, rule, gate, view, signal and observer took a step",
    )
    add_traceback(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Train."""
    from kdmesh.spec.read import locate, read_text

    if args.seed is not None:
        args.overrides = [*args.overrides, f"seed={args.seed}"]
    if args.data_seed is not None:
        args.overrides = [*args.overrides, f"data.seed={args.data_seed}"]
    spec, source_text = read(args), read_text(locate(args.file))
    if args.beginning is not None:
        from kdmesh.engine.beginning import begun_from

        spec, anew = begun_from(spec, Path(args.beginning), "--from")
        for note in anew:
            print(f"kdmesh: {note}", file=sys.stderr)
    if args.attendance is not None:
        from kdmesh.engine.attendance import replayed

        spec = replayed(spec, Path(args.attendance))
    understood(spec)
    allow_code(spec, args)
    from kdmesh.engine.collect import HERE, Place, is_url

    place = Place.writable(args.out) if is_url(args.out) else None
    if place is None and (what := found_at(args.out)) not in ("folder", "does not exist"):
        what = "is a file, not a folder" if what == "file" else what
        raise MeshError(
            what, file=args.out or "''", where="--out", instead="a folder, which is made where it is not there"
        )
    from kdmesh.cli.running import launch
    from kdmesh.engine.request import Request  # imports torch: only for a mesh that can be planned

    request = Request(
        spec,
        args.backend,
        args.ray_address,
        HERE if place else Path(args.out),
        place,
        source_text,
        beside(args.file),
        strict_signals=args.strict_signals,
        checkpoint_seconds=args.checkpoint_seconds,
        progress_timeout=args.progress_timeout,
        report=not args.no_report,
        seeds=args.seeds,
        controls=args.controls,
        profiled=args.profile_plugins,
        store=args.store,
        privacy=None if args.privacy is None else Path(args.privacy),
    )
    if args.parties == "remote":
        return coordinate(request, args)
    refuse_joining(args, "--parties remote, or leave it out")
    return launch(request, args.quiet, args.measure)


def seeds(text: str) -> int:
    """Read a number of seeds: as :func:`count`, and no more than a command trains."""
    if (number := count(text)) > MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{number:,} is more than {MOST_SEEDS:,}")
    return number


def count(text: str) -> int:
    """Read a number of things, at least 1; argparse puts this function's name into its message."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number
