"""By what a mesh is known: where all parties compare theirs, and what a party's answers are told apart by."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan

WHO = ("fraction", "quorum", "timeout", "attendance")
"""Fields of `participation` that say who takes part in a round."""


def of_run(plan: Plan) -> str:
    """What the queries of a run are of: the sha256 of the mesh as all parties have it, with its seed.

    So a party that is asked anew by another mesh, or with another seed, pays anew, and its noise is another. Who is to
    take part in a round is left out: who did stands in each query, so that a simulation of the same rounds asks the
    same.
    """
    plain = _plain(plan)
    asked = plain.get("participation") or {}
    for name in WHO:
        asked.pop(name, None)
    return hashlib.sha256(json.dumps([_sum(plain), plan.spec.seed]).encode()).hexdigest()


def of_mesh(plan: Plan) -> str:
    """The sha256 of a mesh as all have it, in its long form: without its description, its seed and threads, and without
    where data and weights are.

    Where public samples are is another place for each, and what they are is compared; a party's own only it knows.
    """
    return _sum(_plain(plan))


def _sum(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _plain(plan: Plan) -> dict[str, Any]:
    plain = plan.resolved().dump()
    for name in ("description", "seed", "placement"):  # of parties, placement is settled, and threads may be
        plain.pop(name, None)
    plain.get("data", {}).pop("dataset", None)
    for party in plain.get("parties", {}).values():
        party["data"] = party.get("data") is not None
    for agent in plain.get("agents", {}).values():
        agent["weights"] = agent.get("weights") is not None
        agent.get("train", {}).pop("threads", None)
    plain.get("train", {}).pop("threads", None)
    return plain
