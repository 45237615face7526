"""Where hosts live: in this process, or in Ray actors."""

from __future__ import annotations

import os
import secrets
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdmesh.backends._base import Backend


def make_backend(name: str, address: str | None = None) -> Backend:
    """Return a backend by name, `inline` or `ray`; only `ray` imports ray."""
    if name == "inline":
        from kdmesh.backends.inline import InlineBackend

        return InlineBackend()
    if address is None:
        _private_ray()
    from kdmesh.backends.ray import RayBackend

    return RayBackend(address)


def _private_ray() -> None:
    """Settle, before ray is imported (it reads these then), that an embedded Ray reports no usage and asks for a token.

    A cluster that is joined has settings of its own, and so has a Ray that the user's program already imported.
    """
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
