"""Where hosts live: in this process, or in Ray actors."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kdmesh.backends._base import Backend
    from kdmesh.backends.ray_data import RayPool


class Session:
    """A backend for one run or several, made when it is first asked for; closed at the end of a `with`.

    So several seeds share one Ray, and a mesh with a mistake starts none. ``name`` is None until it is settled which.
    """

    def __init__(
        self,
        name: str | None,
        address: str | None = None,
        progress_timeout: float = 600.0,
        made: Backend | None = None,
    ) -> None:
        """``made``: a backend that is there already."""
        self.name: str | None = made.name if made is not None else None if name is None else named(name)
        self.address, self.progress_timeout = address, progress_timeout
        self._backend = made

    @property
    def backend(self) -> Backend:
        """The backend; hosts are built by its `open`, anew for each run."""
        if self._backend is None:
            assert self.name is not None
            self._backend = make_backend(self.name, self.address, self.progress_timeout)
        return self._backend

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._backend is not None:
            with nullcontext() if error is None else suppress(Exception):  # what ended the run is told, not this
                self._backend.close()
            self._backend = None


def make_backend(name: str, address: str | None = None, progress_timeout: float = 600.0) -> Backend:
    """Return a backend by its name in `BACKENDS`, with MeshError for another one."""
    return BACKENDS[named(name)](address, progress_timeout)


def named(name: Any) -> str:
    """The name of a backend, which there must be."""
    if isinstance(name, str) and name in BACKENDS:
        return name
    raise MeshError(f"there is no backend {name!r}", where="backend", instead=nearest(str(name), BACKENDS, "backends"))


def _inline(address: str | None, progress_timeout: float) -> Backend:
    from kdmesh.backends.inline import InlineBackend

    return InlineBackend()


def _ray(address: str | None, progress_timeout: float) -> Backend:
    """The only one that imports ray."""
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of calls that nobody waits for after a loss
    if address is None:
        _private_ray()
    from kdmesh.backends.ray import RayBackend

    return RayBackend(address, progress_timeout)


def make_pool(address: str | None, actors: int) -> RayPool:
    """Actors that do pieces of work over Ray Data: see `ray_data.py`."""
    if address is None:
        _private_ray()
    from kdmesh.backends.ray_data import RayPool

    return RayPool(address, actors)


BACKENDS: dict[str, Callable[[str | None, float], Backend]] = {"inline": _inline, "ray": _ray}
"""Backends by name, each made from the address of a cluster, or none, and a progress timeout."""


def _private_ray() -> None:
    """Settle, before ray is imported (it reads these then), that an embedded Ray reports no usage and asks for a token.

    A cluster that is joined has settings of its own, and so has a Ray that the user's program already imported.
    """
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
