"""A run that begins with the weights that another one ended with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import MANIFEST, SEEDS, SUMMARY
from kdmesh.engine.folder import AGENTS
from kdmesh.errors import MeshError, nearest
from kdmesh.files import OURS, WEIGHTS, found_at, inside, read_json

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.spec import MeshSpec

USED = ("attention", "max_length", "bi_encoder", "gradient_checkpointing", "lora", "dtype")
"""Settings of a model that has a form of its own which say how it is used; what it is, its folder says."""


def begun_from(spec: MeshSpec, root: Path, where: str) -> tuple[MeshSpec, list[str]]:
    """Give agents the final weights of those that have their names in the finished run ``root``.

    Returns the mesh, and in words who begins anew, and who was pruned there and is pruned again. An agent that shares
    another's weights, or that the mesh gives a file of its own, stays as it is; `seed` and `init_of` of one that begins
    with weights are left out. Optimisers and schedules begin anew. MeshError, with ``where``, for what is no run's
    folder, where none of the agents has weights there, and for another model than the one there that has its own form.
    """
    if not (root / MANIFEST).is_file():
        what = f"{root} {found_at(root)}" if found_at(root) != "folder" else f"{root} has no {MANIFEST}"
        raise MeshError(f"this is not a run's folder: {what}", where=where, instead="runs/<name>/<time>")
    ended = sorted(one.name for one in (root / AGENTS).glob("*") if one.is_dir())
    if not ended:
        seeds = [one.name for one in (root / SEEDS).glob("*") if (one / AGENTS).is_dir()]
        instead = f"one of its seeds: {root / SEEDS / min(seeds)}" if seeds else f"finish it: kdmesh resume {root}"
        raise MeshError(f"{root} has no agents that have finished", where=where, instead=instead)
    agents, anew, ends, there = dict(spec.agents), list[str](), _summarised(root), list[str]()
    for name, agent in spec.agents.items():
        if agent.weights_of is not None or agent.weights is not None:
            continue
        start = {"seed": None, "init_of": None}
        home = inside(root, AGENTS, name)
        if name in ended and agent.model is not None and (home / OURS).is_file():
            if "prefix" in agent.model.config:
                anew.append(f"{name} begins as the file says: a prefix is no part of the model in {home}")
                continue
            was = next(iter((read_json(home / OURS) or {}).get("model") or ()), agent.model.name)
            if was != agent.model.name:
                what = f"{name} is of the model {was} in {home}, and {agent.model.name} here"
                instead = f"{was}, or another name of the agent, which then begins anew"
                raise MeshError(what, where=f"agents.{name}.model", instead=instead)
            kept = {field: value for field, value in agent.model.config.items() if field in USED}
            model = agent.model.model_copy(update={"config": {**kept, "path": str(home)}})
            agents[name] = agent.model_copy(update={"model": model, **start})
            there.append(name)
            continue
        file = home / WEIGHTS if name in ended else None
        if file is None or not file.is_file():
            anew.append(f"{name} begins as the file says: {root} has no weights of it")
            continue
        agents[name] = agent.model_copy(update={"weights": str(file), **start})
        there.append(name)
    for name in there:
        if agents[name].prune and (before := _taken(ends.get(name))):
            anew.append(f"{name} was pruned in {root}, {before}, and `prune` takes something out of it again")
    if not there:
        instead = nearest(next(iter(spec.agents)), ended, "agents of that run")
        raise MeshError(f"no agent of this mesh has weights in {root}", where=where, instead=instead)
    return spec.model_copy(update={"agents": agents}), anew


def _summarised(root: Path) -> dict[str, Any]:
    """What a run's summary says of each agent."""
    found = (read_json(root / SUMMARY) or {}).get("agents")
    return found if isinstance(found, dict) else {}


def _taken(told: Any) -> str:
    """What pruning took out of an agent, in words; "" where nothing is smaller: zeros are the same ones again."""
    counts = told.get("pruned") if isinstance(told, dict) else None
    match counts:
        case {"before": int(before), "after": int(after)} if after < before:
            return f"{before:,} parameters to {after:,}"
    return ""
