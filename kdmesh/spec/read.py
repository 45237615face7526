"""Read a mesh from a file, or a bundled one by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kdmesh.errors import MeshError, nearest
from kdmesh.files import found_at
from kdmesh.spec.explain import explain
from kdmesh.spec.mesh import MeshSpec
from kdmesh.spec.numbers import refuse_odd_values
from kdmesh.spec.override import apply
from kdmesh.spec.paths import anchor
from kdmesh.spec.yaml12 import BYTES, load

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["anchor", "bundled", "explain", "locate", "parse", "read_mesh", "read_text"]


def read_mesh(source: str | Path, overrides: Sequence[str] = ()) -> MeshSpec:
    """Read a YAML file, or a bundled mesh by its name, with ``path.to.field=value`` overrides laid over it.

    Relative paths in it start from the file's folder. Raises MeshError for whatever the user can mend.
    """
    path = locate(source)
    data = load(read_text(path), file=str(source))
    return anchor(parse(apply(_mapping(data, str(source)), overrides), file=str(source)), path.resolve().parent)


def parse(data: dict[str, Any], file: str = "") -> MeshSpec:
    """Check plain data, as a YAML file gives it, and return the mesh; ``file`` names its origin in errors."""
    refuse_odd_values(_mapping(data, file), MeshSpec, file=file)
    try:
        return MeshSpec.model_validate(data)
    except ValidationError as error:
        raise explain(error, MeshSpec, file=file, data=data) from None


def locate(source: str | Path) -> Path:
    """Return the path of a mesh: ``source`` itself where it is a file, else the bundled mesh of this name."""
    what = found_at(source)
    if what == "file":
        return Path(source)
    known = bundled()
    if str(source) in known:
        return known[str(source)]
    if what == "folder":
        what = "is a folder, not a file"
    elif what == "does not exist":
        what = "no such file, and no bundled mesh of this name"
    raise MeshError(what, file=str(source) or "''", instead=nearest(str(source)[:255], known, "bundled"))


def bundled() -> dict[str, Path]:
    """Return the bundled meshes by name: in the package once installed, beside it in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    folder = next((f for f in (package / "topologies", package.parent / "topologies") if f.is_dir()), package)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_text(path: Path) -> str:
    """Return a mesh file's text. Raises MeshError if it cannot be read, is no UTF-8, or is larger than a mesh is."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(BYTES + 1)
    except OSError as error:
        raise MeshError(f"cannot be read: {error.strerror}", file=str(path)) from None
    if len(raw) > BYTES:
        raise MeshError(f"is larger than {BYTES >> 20} MiB: not a mesh", file=str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise MeshError("is not UTF-8 text", where=f"line {line}", file=str(path)) from None


def _mapping(data: Any, file: str) -> dict[str, Any]:
    if isinstance(data, dict):
        return data
    what = "is empty" if data is None else f"holds a {type(data).__name__}, not a mesh"
    tight = re.match(r"([\w.-]+):(\S+)", data) if isinstance(data, str) else None
    spaced = f"a space after the colon: `{tight[1]}: {tight[2][:30]}`; " if tight else ""
    raise MeshError(what, file=file, instead=f"{spaced}agents: {{...}} and connect: [...]")
