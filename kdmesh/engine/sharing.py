"""Which hosts see a folder of the driver's machine: some are on other machines, where one of that name is another."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from kdmesh.backends._base import wait
from kdmesh.files import read, write_all
from kdmesh.hosts.export import TOKEN
from kdmesh.hosts.remote import RemoteHost

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kdmesh.backends._base import Backend, Work


def apart(root: Path, backend: Backend, hosts: Iterable[str]) -> Work[set[str]]:
    """The hosts that are on a machine without this folder: tokens left here must be seen both ways.

    Raises OSError where none can be left.
    """
    names, token = list(hosts), secrets.token_hex(8)
    try:
        write_all(root, {TOKEN: token.encode()})
        seen = yield from wait(backend.submit(host, RemoteHost.sees, str(root), token) for host in names)
        return {host for host, there in zip(names, seen, strict=True) if not (there and _has(root, host, token))}
    finally:
        for path in root.glob(f"{TOKEN}*"):
            path.unlink(missing_ok=True)


def _has(root: Path, host: str, token: str) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        return read(root / f"{TOKEN}-{host}", most=len(token)) == token
    return False
