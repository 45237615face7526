"""What parties and their coordinator must agree on before any of them computes: the file, and the public samples."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from kdmesh.graph.sources import below
from kdmesh.hosts.source import Source
from kdmesh.spec.parties import OWN

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

VERSION = version("kdmesh")
MOST = 10**8
"""The most samples of a party: room is made for all of them, wherever they are."""


def known_before(plan: Plan, party: str = "") -> tuple[Table, dict[str, Stream]]:
    """What a party, or the coordinator (""), has before anyone has said how many samples there are elsewhere.

    A sample stands for each other party's; nothing is taken of them.
    """
    spec = plan.spec
    others = {name: 1 for name, one in spec.parties.items() if one.data is not None and name != party}
    open_ = {name: one for name, one in spec.streams.items() if OWN not in below(spec, name)}
    return Source(sizes=others).load(replace(plan, spec=spec.model_copy(update={"streams": open_})))


def public_digest(table: Table) -> str:
    """The sha256 of the public samples and labels of a table, which everyone reads for himself."""
    own = table.official.get(OWN)
    count = len(table) - (0 if own is None else len(own))
    rows = torch.arange(count)
    known = None if table.known is None else table.known[rows]
    public = replace(table, x=table.x[rows], y=None if table.y is None else table.y[rows], known=known)
    return " ".join(str(part) for part in public.fingerprint.values())
