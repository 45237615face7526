"""The registry of this process, and how another process gets one like it."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import decode_source
from pathlib import Path
from typing import Any

from kdmesh.errors import MeshError
from kdmesh.plugins.finding import Registry
from kdmesh.plugins.kinds import FOLDER, SWITCHES
from kdmesh.plugins.record import PluginFile
from kdmesh.spec import offered

BUILT_IN = ("kdmesh.builtin.plugin",)
"""Modules with hooks that are always there; by name, as installed plugins are."""
_received: list[PluginFile] = []


def registry() -> Registry:
    """The registry of this process: the built-ins, every installed plugin, and those of the plugins folder."""
    return _registry(tuple(os.environ.get(name) for name in SWITCHES))


@cache
def _registry(switches: tuple[str | None, ...]) -> Registry:
    only, disabled, folder, strict, trace = switches
    return Registry(
        [import_module(name) for name in BUILT_IN],
        [*sorted(entry_points(group="kdmesh"), key=_place), *_files(folder or "")],
        only=only,
        disabled=disabled or "",
        strict=strict not in (None, "", "0"),
        trace=trace not in (None, "", "0"),
    )


def _place(entry: EntryPoint) -> tuple[str, str]:
    """By distribution and name: the order of a machine's folders, in which they are found, is another on each."""
    return entry.dist.name if entry.dist else "", entry.name


def _files(folder: str) -> list[PluginFile]:
    """The plugins of a folder: its ``*.py``, by name; in a worker what the driver sent."""
    if _received or not folder:
        return _received
    if not Path(folder).is_dir():
        raise MeshError(f"{folder!r} is not a folder", where="--plugins-dir", instead="a folder of single-file plugins")
    paths = sorted(Path(folder).resolve().glob("[!_]*.py"))
    return [PluginFile(path.stem, str(path), _source(path)) for path in paths if path.is_file()]


def _source(path: Path) -> str:
    """The text of a plugin's file, in the encoding that it declares; of one that cannot be read, text that says why."""
    try:
        return decode_source(path.read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        return f"raise ImportError({f'cannot be read: {error}'!r})"


def carried() -> dict[str, Any]:
    """What makes another process' registry like this one's, in plain types: for :func:`receive` there."""
    files = _files(os.environ.get(FOLDER, ""))
    return {
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ and name != FOLDER},
        "files": [(file.name, file.path, file.text) for file in files],
    }


def receive(sent: dict[str, Any]) -> None:
    """Take over what :func:`carried` returned in the driver; called in a worker before anything is unpickled there."""
    for name in SWITCHES:
        os.environ.pop(name, None)
    os.environ.update(sent["switches"])
    _received[:] = [PluginFile(*fields) for fields in sent["files"]]
    _registry.cache_clear()
    registry()


offered.ask = registry  # messages about the file name what plugins offer
