"""What parties and their coordinator must agree on before any of them computes: the file, and the public samples."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from kdmesh.spec.parties import OWN

if TYPE_CHECKING:
    from kdmesh.streams.table import Table

VERSION = version("kdmesh")
MOST = 10**8
"""The most samples of a party: room is made for all of them, wherever they are."""


def public_digest(table: Table) -> str:
    """The sha256 of the public samples and labels of a table, which everyone reads for himself."""
    own = table.official.get(OWN)
    count = len(table) - (0 if own is None else len(own))
    rows = torch.arange(count)
    known = None if table.known is None else table.known[rows]
    public = replace(table, x=table.x[rows], y=None if table.y is None else table.y[rows], known=known)
    return " ".join(str(part) for part in public.fingerprint.values())
