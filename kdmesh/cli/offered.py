"""Commands that plugins offer. Plugins are read where the first word of a command line is none of kdmesh's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from kdmesh.errors import RunFailed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from kdmesh.offers import CommandOffer


def asked(words: Sequence[str], commands: Any) -> CommandOffer | None:
    """Add the command that a command line asks for, if a plugin offers it; MeshError where that one cannot be used.

    Where nobody offers it, plugins that have a problem are named: it may be theirs. ``commands``: argparse's, with
    kdmesh's own.
    """
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or name in commands.choices:
        return None
    from kdmesh.plugins import registry

    found = registry()
    claimed = any(("commands", name) in record.claims for record in found.records)
    if name not in found.names("commands") and not claimed:
        found.warn()
        return None
    offer: CommandOffer = found.find("commands", name)  # says which plugin fails to provide it
    before = {*commands.choices}
    try:
        offer.load()(commands)
    except Exception as error:
        _attribute(offer, error, "to be added")
    added = {*commands.choices} - before
    if added != {name}:
        what = f"it added {', '.join(map(repr, sorted(added))) or 'no command'}, not {name!r} alone"
        _attribute(offer, RuntimeError(what), "to be added")
    return offer


def run(offer: CommandOffer, args: argparse.Namespace) -> int:
    """Run a plugin's command; returns its exit code. RunFailed names the plugin whose code raised."""
    try:
        if not callable(execute := getattr(args, "execute", None)):
            raise RuntimeError("it sets no execute(args)")
        code = execute(args)
        if isinstance(code, bool) or not isinstance(code, int):
            raise RuntimeError(f"execute gave {code!r}, not an exit code")
    except RunFailed:
        raise
    except Exception as error:
        _attribute(offer, error, "to run")
    return code


def _attribute(offer: CommandOffer, error: Exception, doing: str) -> NoReturn:
    from kdmesh.plugins import registry

    registry().attribute_error("commands", offer.name, error, doing, "")
