"""``kdmesh resume``: go on with a run that was interrupted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kdmesh.cli.common import (
    add_backend,
    add_measure,
    add_no_code,
    add_plugins_dir,
    add_privacy,
    add_store,
    add_traceback,
    allow_code,
    import_from,
    use_plugins_dir,
    working_folder,
)
from kdmesh.cli.coordinating import add_joining, coordinate, refuse_joining
from kdmesh.errors import MeshError
from kdmesh.files import found_at


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Go on with an interrupted run, from its last checkpoints, to the weights it would have had; or "
        "with a finished one, for more epochs."
    )
    command = commands.add_parser("resume", help="go on with an interrupted run", description=about)
    command.add_argument(
        "folder", metavar="DIR", help="the run's folder: runs/<name>/<time>, or the URL where it was collected"
    )
    add_backend(command, "as it was begun")
    add_measure(command, "at the end, measure")
    command.add_argument(
        "--from-start",
        action="store_true",
        help="where no checkpoint of a stage is sound, do its work again from the very beginning",
    )
    command.add_argument(
        "--more",
        metavar="AGENT.WHAT=N",
        action="append",
        default=[],
        help="add so many requests or tokens to what may be spent on an endpoint: gpt.requests=500 (repeatable)",
    )
    command.add_argument(
        "--epochs",
        metavar="N",
        action="append",
        default=[],
        help="train a finished run on to so many epochs, in a new folder: 40, or one agent's, student=40 (repeatable)",
    )
    add_joining(command)
    add_store(command)
    add_privacy(command, "simulated parties")
    add_plugins_dir(command)
    add_no_code(command)
    add_traceback(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Go on."""
    use_plugins_dir(args)
    if "://" not in args.folder and (what := found_at(args.folder)) != "folder":
        what = "is a file, not a folder" if what == "file" else what
        raise MeshError(what, file=args.folder or "''", instead="a run's folder: runs/<name>/<time>")
    from kdmesh.engine.collect import Place, is_url

    folder, place = Path(args.folder), None
    if is_url(args.folder):
        place = Place.writable(args.folder)
        folder = place.fetch()
        print(f"fetched to {folder}", file=sys.stderr)
    from kdmesh.compare.design import DESIGN

    if (folder / DESIGN).is_file():
        from kdmesh.cli.compare import resume

        for flag, given in (
            ("--backend", args.backend),
            ("--from-start", args.from_start),
            ("--measure", args.measure),
            ("--store", args.store),
            ("--epochs", args.epochs),
            ("--privacy", args.privacy),
        ):
            if given:
                raise MeshError("a comparison goes on as it was begun", where=flag, instead=f"kdmesh resume {folder}")
        return resume(folder, args)
    from kdmesh.sweep.design import DESIGN as SWEEP

    if (folder / SWEEP).is_file():
        from kdmesh.cli.sweep import resume

        return resume(folder, args)
    from kdmesh.engine.resume import asked, interrupted, refuse_edits
    from kdmesh.spec.read import parse

    begun = asked(folder)["begun"]
    import_from([*begun["beside"], *working_folder()])  # a job has another folder each time
    spec = interrupted(folder) if not args.epochs else parse(asked(folder)["mesh"])
    refuse_edits(folder)  # before anything is imported, or written elsewhere
    allow_code(spec, args)
    if place is None and "collect" in begun and not args.epochs:
        place = Place.writable(
            begun["collect"], f'access, or no "collect" in {folder / "manifest.json"}: it stays here'
        )
    from kdmesh.cli.running import launch
    from kdmesh.engine.request import Request
    from kdmesh.engine.spent import add_more

    add_more(folder, spec, args.more)
    request = Request(
        spec,
        args.backend or begun["backend"],
        args.ray_address,
        collect=place,
        resume=folder,
        from_start=args.from_start,
        strict_signals=begun["strict_signals"],
        checkpoint_seconds=args.checkpoint_seconds,
        progress_timeout=args.progress_timeout,
        report=not args.no_report,
        seeds=begun.get("seeds", 1),
        controls=begun.get("controls", False),
        tested=begun.get("tested", True),
        store=begun.get("store") if args.store is None else args.store,
        privacy=None if args.privacy is None else Path(args.privacy),
    )
    if args.epochs:
        from kdmesh.engine.raising import asked_epochs, raised

        request = raised(request, asked_epochs(args.epochs))
        print(f"trains on in {request.resume}; {folder} stays as it is", file=sys.stderr)
    if begun["backend"] == "parties":
        return coordinate(request, args)
    refuse_joining(args, "leave it out: this run was begun without remote parties")
    return launch(request, args.quiet, args.measure)
