"""`on_loss: drop`: a run that goes on without agents that it lost, where all they did in what is left was to teach."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.files import read as read_text
from kdmesh.files import write_json
from kdmesh.graph.reach import closure

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan, Stage

FILE = "drops.json"
Drop = dict[str, Any]  # agents; at: the checkpoint of each unfinished stage that goes on; known: metrics by agent


def read(root: Path) -> list[Drop]:
    """What a run has dropped so far, oldest first. MeshError where the file is none of ours."""
    path = root / FILE
    try:
        drops: list[Drop] = json.loads(read_text(path))["drops"] if path.exists() else []
        if not all(isinstance(drop[key], kind) for drop in drops for key, kind in (("agents", list), ("known", dict))):
            raise ValueError("its drops name no agents")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        instead = "put it back as it was, or begin a new run"
        raise MeshError(f"what this run dropped cannot be read: {reason}", file=str(path), instead=instead) from None
    return drops


def write(root: Path, drops: list[Drop]) -> None:
    """Write it whole: a kill in between leaves the file of before."""
    write_json(root / FILE, {"drops": drops})


def obstacle(plan: Plan, agents: Collection[str], left: list[Stage]) -> str:
    """Why a run cannot go on without these agents through the stages that are left; nothing if it can."""
    gone = plan.dropped | set(agents)
    if not plan.without(agents).hosts:
        return "no agent would be left"
    for stage in left:
        if trains := [agent for agent in agents if agent in stage.agents]:
            return f"{trains[0]} still trains"
        for flow in plan.merging.into(stage.agents):
            if lacking := [leaf.source for leaf in plan.merging.behind(flow) if leaf.source in agents]:
                return f"weights of {lacking[0]} flow into {flow.target}"
        for phase in stage.phases.values():
            if writes := [op for op in phase.ops if op.kind == "gen" and op.node in agents]:
                return f"{writes[0].node} writes stream {writes[0].stream!r}"
            teachers: dict[str, set[str]] = defaultdict(set)
            lost: dict[str, Edge] = {}
            for edge in closure(phase.edges, plan.consensus):
                teachers[edge.target].update({edge.source} - gone if edge.as_ == "target" else ())
                if edge.source in gone:
                    lost[edge.target] = edge
                    if edge.as_ != "target":
                        return f"{edge.target} is informed by {edge.source}"
            for target in lost:
                node = plan.consensus.get(target)
                apart = {target} if node is None else set() if node.include_self else {e.target for e in node.readers}
                if not teachers[target] or any(not teachers[target] - {reader} for reader in apart):
                    return f"{target} would have no teacher left"
    return ""
