"""kdmesh: a mesh is a graph of models, and knowledge flows along its edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdmesh.api import Mesh, Result, data, load
    from kdmesh.errors import MeshError, RunFailed
    from kdmesh.hookspecs import hookimpl
    from kdmesh.loops.collator import TargetsCollator
    from kdmesh.loops.targets import targets

    __version__: str

_HOMES = {
    "Mesh": "kdmesh.api",
    "Result": "kdmesh.api",
    "data": "kdmesh.api",
    "load": "kdmesh.api",
    "MeshError": "kdmesh.errors",
    "RunFailed": "kdmesh.errors",
    "hookimpl": "kdmesh.hookspecs",
    "TargetsCollator": "kdmesh.loops.collator",
    "targets": "kdmesh.loops.targets",
}
__all__ = [
    "Mesh",
    "MeshError",
    "Result",
    "RunFailed",
    "TargetsCollator",
    "__version__",
    "data",
    "hookimpl",
    "load",
    "targets",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `import kdmesh` alone imports neither torch nor ray."""
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'kdmesh' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def _version() -> str:
    """The version that is installed; `0+unknown` of a source checkout that is not."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("kdmesh")
    except PackageNotFoundError:
        return "0+unknown"
