"""Weights that flow fit where they flow: the same architecture, which a plan alone does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph import private
from kdmesh.graph.merging import SAMPLES

if TYPE_CHECKING:
    from torch import nn

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan

SHOWN = 3  # entries of a state that a message lists


def entries(module: nn.Module) -> dict[str, str]:
    """Type and shape of each entry of a module's state, ``float32 [10, 64]``."""
    state = module.state_dict()
    return {name: f"{str(v.dtype).removeprefix('torch.')} {list(v.shape)}" for name, v in state.items()}


def compare(plan: Plan, found: Checked) -> None:
    """Refuse weights of unlike ones; note those that learned on a private stream and leave their agent."""
    for flow in plan.merging.flows:
        if flow.weight == SAMPLES and flow.stream not in found.streams:
            instead = f"{flow.stream}: 0.2"
            what = f"there is no {flow.stream!r} stream in this data"
            raise MeshError(what, where=f"data.{flow.stream}", instead=instead)
        for leaf in plan.merging.behind(flow) if flow.target in plan.spec.agents else ():
            _alike(plan, found, leaf.source, flow.target, leaf.where)
    seen = private.learned_on(plan.spec, plan.edges, plan.consensus, plan.owner)
    away: dict[tuple[str, str], list[str]] = {}
    for target, sources in plan.merging.sources().items():
        for source in sources:
            streams = seen.get(plan.owner[source], {})
            if streams and plan.owner[source] != plan.owner[target]:
                away.setdefault((target, " and ".join(map(repr, streams))), []).append(source)
    for (target, streams_), sources in away.items():
        found.notes.append(
            f"weights of {', '.join(sources)}, learned on the private stream {streams_}, flow to {target}: samples and "
            "signals stay, but weights may tell of samples, and no noise is added"
        )


def _alike(plan: Plan, found: Checked, source: str, target: str, where: str) -> None:
    """Two agents have the same entries in their states, and mean the same by their outputs."""
    first, second = found.states[plan.owner[source]], found.states[plan.owner[target]]
    odd = [
        f"{name} ({first.get(name, 'missing')}, {second.get(name, 'missing')})"
        for name in dict.fromkeys((*first, *second))
        if first.get(name) != second.get(name)
    ]
    instead = "agents with the same model"
    if odd:
        more = f" and {len(odd) - SHOWN:,} more" if len(odd) > SHOWN else ""
        what = f"weights of {source} do not fit {target}: they differ in {', '.join(odd[:SHOWN])}{more}"
        raise MeshError(what, where=where, instead=instead)
    one, other = (plan.spec.agents[plan.owner[name]].labels for name in (source, target))
    if one != other:
        what = f"outputs of {source} and {target} stand for different classes, {one or 'all'} and {other or 'all'}"
        raise MeshError(what, where=where, instead="agents with the same `labels`")
    if found.reading.texts and found.reading.key(source) != found.reading.key(target):
        what = f"{source} and {target} cut texts differently, so their weights mean different tokens"
        raise MeshError(what, where=where, instead="agents with one tokenizer")
