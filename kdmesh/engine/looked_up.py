"""What is looked up in the store: what its settings leave open is settled before a run, and stands in its mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.engine.spared import kept_at
from kdmesh.errors import MeshError
from kdmesh.graph.looked_up import lookup
from kdmesh.imports import import_path
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from kdmesh.spec import MeshSpec


def settled(spec: MeshSpec, store: str | None) -> MeshSpec:
    """The mesh with such settings in whole, so that who reads it again finds the same answers, or is refused.

    ``store``: as a run has it. MeshError, where the agent is written, for answers that are not there.
    """
    spec = _data(spec, store)
    changed: dict[str, Any] = {}
    for name, agent in spec.agents.items():
        if agent.model is None or not (settle := lookup(agent.model, registry())):
            continue
        where = f"agents.{name}"
        registry().check("models", agent.model.name, agent.model.config, f"{where}.model")
        try:
            config = import_path(settle, f"{where}.model")(agent.model.config, kept_at(store), agent.labels)
        except MeshError as error:
            if error.where.startswith(("model", "labels")):
                error.where = f"{where}.{error.where}"
            raise
        if config != agent.model.config:
            changed[name] = agent.model_copy(update={"model": agent.model.model_copy(update={"config": config})})
    return spec.model_copy(update={"agents": {**spec.agents, **changed}}) if changed else spec


def _data(spec: MeshSpec, store: str | None) -> MeshSpec:
    """The same of a data set."""
    ref = None if spec.data is None else spec.data.dataset
    if ref is None or ref.is_import or ref.name not in registry().names("datasets"):
        return spec
    where = "data.dataset"
    if not (settle := registry().find("datasets", ref.name, where).lookup):
        return spec
    registry().check("datasets", ref.name, ref.config, where)
    config = import_path(settle, where)(ref.config, kept_at(store))
    if config == ref.config:
        return spec
    assert spec.data is not None
    dataset = ref.model_copy(update={"config": config})
    return spec.model_copy(update={"data": spec.data.model_copy(update={"dataset": dataset})})
