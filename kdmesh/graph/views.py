"""Agents' views: whose draws they have, and which of them never sees a sample twice alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.spec import MeshSpec

if TYPE_CHECKING:
    from kdmesh.plugins import Registry
    from kdmesh.spec import ViewRef, ViewSpec

OUT = "leave it out"


def filled(spec: MeshSpec) -> MeshSpec:
    """The mesh with the views of agents that draw as another does (`of`) written out."""
    if all(agent.view.of is None for agent in spec.agents.values()):
        return spec
    agents = dict(spec.agents)
    for name, agent in spec.agents.items():
        if agent.view.of is not None:
            agents[name] = agent.model_copy(update={"view": _filled(spec, name, agent.view)})
    return spec.model_copy(update={"agents": agents})


def _filled(spec: MeshSpec, name: str, view: ViewSpec) -> ViewSpec:
    where, other = f"agents.{name}.view", str(view.of)
    if other not in spec.agents or other == name:
        what = f"unknown agent {other!r}" if other != name else "an agent cannot refer to itself"
        instead = nearest(other, [agent for agent in spec.agents if agent != name], "agents")
        raise MeshError(what, where=f"{where}.of", instead=instead)
    theirs = spec.agents[other].view
    if theirs.of is not None:
        raise MeshError(f"{other} draws as {theirs.of} does", where=f"{where}.of", instead=f"of: {theirs.of}")
    if not theirs.augment:
        what = f"{other} augments nothing, so there is nothing to draw as it does"
        raise MeshError(what, where=f"{where}.of", instead=OUT)
    given = view.model_fields_set
    if "draws" in given and view.draws != theirs.draws:
        what = f"{other} sees {_told(theirs)}, and {name} would see {_told(view)}, so that their draws differ"
        raise MeshError(what, where=f"{where}.draws", instead=OUT)
    augment = view.augment if "augment" in given else theirs.augment
    if not augment:
        raise MeshError(f"{name} augments nothing, so it draws nothing", where=f"{where}.of", instead=OUT)
    return view.model_copy(update={"augment": augment, "draws": theirs.draws})


def _told(view: ViewSpec) -> str:
    return f"{view.draws} draws of a sample" if view.draws else "a new draw in each epoch"


def mixing(spec: MeshSpec, registry: Registry) -> dict[str, ViewRef]:
    """By agent, the augmentation that mixes the samples of its batches. MeshError where it is not the last."""
    found: dict[str, ViewRef] = {}
    for name, agent in spec.agents.items():
        mixes = [number for number, one in enumerate(agent.view.augment) if registry.find("views", one.name).mixes]
        if not mixes:
            continue
        first, last = mixes[0], len(agent.view.augment) - 1
        if first != last:
            one, after = (agent.view.augment[number].name for number in (first, first + 1))
            what = f"{one} mixes samples of a batch, and {after} would then augment what is no sample"
            where = f"agents.{name}.view.augment.{first}"
            raise MeshError(what, where=where, instead="at most one that mixes, and as the last")
        found[name] = agent.view.augment[last]
    return found


def of_samples(view: ViewSpec, mixing: ViewRef | None) -> int:
    """How many augmentations a view has of single samples."""
    return len(view.augment) - (mixing is not None)


def fresh(spec: MeshSpec, mixing: dict[str, ViewRef]) -> set[str]:
    """The agents that see samples in more ways than one: what they publish of each would be of one alone."""
    return {
        name for name, agent in spec.agents.items() if name in mixing or (agent.view.augment and agent.view.draws != 1)
    }
