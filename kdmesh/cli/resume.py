"""``kdmesh resume``: go on with a run that was interrupted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kdmesh.cli.common import add_backend, add_plugins_dir, import_from, use_plugins_dir


def add(commands: Any) -> None:
    """Add the command."""
    about = "Go on with an interrupted run, from its last checkpoints, to the weights it would have had."
    command = commands.add_parser("resume", help="go on with an interrupted run", description=about)
    command.add_argument("folder", metavar="DIR", type=Path, help="the run's folder: runs/<name>/<time>")
    add_backend(command, default=None)
    add_plugins_dir(command)
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Go on."""
    use_plugins_dir(args)
    from kdmesh.engine.resume import asked, interrupted

    begun = asked(args.folder)["begun"]
    import_from(begun["beside"])
    spec = interrupted(args.folder)
    from kdmesh.engine.launch import Request, launch

    request = Request(
        spec,
        args.backend or begun["backend"],
        args.ray_address,
        resume=args.folder,
        strict_signals=begun["strict_signals"],
        checkpoint_seconds=args.checkpoint_seconds,
        progress_timeout=args.progress_timeout,
    )
    return launch(request, quiet=args.quiet)
