"""The driver's own code, for workers on machines that do not have it: the text of what is in use and not installed."""

from __future__ import annotations

import sys
import sysconfig
from importlib.util import decode_source
from pathlib import Path

from kdmesh.errors import MeshError

Text = tuple[str, str, bool]  # file, text, whether it is a package
LIMIT = 16 * 2**20
STANDARD = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}


def own_code() -> dict[str, Text]:
    """Modules by name: those imported from outside of site-packages, each with all of the package it belongs to.

    kdmesh itself is installed on every node. Only Python text travels, no data and no compiled modules.
    """
    found: dict[str, Text] = {}
    for name, module in sorted(sys.modules.items()):
        top, file = name.partition(".")[0], getattr(module, "__file__", None)
        if top in ("kdmesh", "__main__", "__mp_main__") or name in found or not file or not _own(Path(file)):
            continue
        for parent in _parents(name):  # a folder without an __init__.py is a package too
            if getattr(sys.modules.get(parent), "__file__", None) is None:
                found[parent] = ("", "", True)
        path = Path(file)
        if path.name != "__init__.py":
            found[name] = (file, _text(path), False)
            continue
        for part in sorted(path.parent.rglob("*.py")):
            inner = part.relative_to(path.parent).with_suffix("").parts
            package = inner[-1] == "__init__"
            if all(map(str.isidentifier, inner)):
                found[".".join([name, *(inner[:-1] if package else inner)])] = (str(part), _text(part), package)
    size = sum(len(text) for _, text, _ in found.values())
    if size > LIMIT:
        raise MeshError(
            f"{size / 2**20:.0f} MB of code that is not installed would be sent to the cluster",
            where="--ray-address",
            instead="install the packages that this mesh needs on the nodes and here",
        )
    return found


def _own(path: Path) -> bool:
    """Whether a file is the user's: Python text that no installer put where it is."""
    if path.suffix != ".py" or {"site-packages", "dist-packages"} & set(path.parts) or not path.exists():
        return False
    return not STANDARD & set(path.resolve().parents)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _text(path: Path) -> str:
    return decode_source(path.read_bytes())
