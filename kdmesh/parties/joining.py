"""What parties and their coordinator must agree on before any of them computes: the file, and the public samples."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from kdmesh.spec.parties import OWN

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.streams.table import Table

VERSION = version("kdmesh")
MOST = 10**8
"""The most samples of a party: room is made for all of them, wherever they are."""


def agreed(plan: Plan) -> str:
    """The sha256 of a mesh as all have it, in its long form: without its description and its seed, and without where
    data and weights are.

    Where public samples are is another place for each, and what they are is compared; a party's own only it knows.
    """
    plain = plan.resolved().dump()
    for name in ("description", "seed"):
        plain.pop(name, None)
    plain.get("data", {}).pop("dataset", None)
    for party in plain.get("parties", {}).values():
        party["data"] = party.get("data") is not None
    for agent in plain.get("agents", {}).values():
        agent["weights"] = agent.get("weights") is not None
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def public_digest(table: Table) -> str:
    """The sha256 of the public samples and labels of a table, which everyone reads for himself."""
    own = table.official.get(OWN)
    count = len(table) - (0 if own is None else len(own))
    rows = torch.arange(count)
    known = None if table.known is None else table.known[rows]
    public = replace(table, x=table.x[rows], y=None if table.y is None else table.y[rows], known=known)
    return " ".join(str(part) for part in public.fingerprint.values())
