"""Paths in a file: settings that are paths by their type, and a few by their name, start from the file's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from kdmesh.spec import offered
from kdmesh.spec.annotations import below, is_model
from kdmesh.spec.base import Named
from kdmesh.spec.mesh import MeshSpec

if TYPE_CHECKING:
    from kdmesh.spec.agents import AgentSpec
    from kdmesh.spec.base import DatasetRef

PATHS = ("path", "validation_path", "test_path", "transfer_path", "root", "folder")
"""Settings of a data set that name a file or folder, also where their type is text."""

MODEL_PATHS = ("path", "tokenizer", "trust_remote_code")
"""Settings of a model that may name a folder, or else what is on a hub: it is a folder where there is one."""


def anchor(mesh: MeshSpec, folder: Path) -> MeshSpec:
    """Return the mesh with relative paths resolved against ``folder``.

    Those are `weights` of agents; `select` of streams; whatever an offer's settings have as a `pathlib.Path`, or as a
    type of pydantic's that is one (`FilePath`, `DirectoryPath`, `NewPath`), also within lists, mappings, and settings
    in settings; `PATHS` of data sets; `MODEL_PATHS` of models that are folders there. What has a scheme
    (``s3://...``) stays as it is.
    """
    mesh = _within(mesh, folder)
    changes: dict[str, Any] = {}
    if mesh.data is not None:
        changes["data"] = mesh.data.model_copy(update={"dataset": _of(mesh.data.dataset, folder)})
    if any(party.data is not None for party in mesh.parties.values()):
        changes["parties"] = {
            name: party if party.data is None else party.model_copy(update={"data": _of(party.data, folder)})
            for name, party in mesh.parties.items()
        }
    moved = {name: _moved(agent, folder) for name, agent in mesh.agents.items()}
    if any(moved[name] is not agent for name, agent in mesh.agents.items()):
        changes["agents"] = moved
    chosen = {name: stream for name, stream in mesh.streams.items() if stream.select is not None}
    if chosen:
        files = {name: one.model_copy(update={"select": _at(str(one.select), folder)}) for name, one in chosen.items()}
        changes["streams"] = {**mesh.streams, **files}
    return mesh.model_copy(update=changes)


def _of(dataset: DatasetRef, folder: Path) -> DatasetRef:
    """A data set whose files are found from ``folder``."""
    config = {
        name: _at(value, folder) if name in PATHS and isinstance(value, str) else value
        for name, value in dataset.config.items()
    }
    return dataset.model_copy(update={"config": config})


def _moved(agent: AgentSpec, folder: Path) -> AgentSpec:
    """An agent whose files are found from ``folder``."""
    changes: dict[str, Any] = {}
    if agent.weights is not None:
        changes["weights"] = _at(agent.weights, folder)
    if agent.model is not None and not agent.model.is_import:
        found = {
            key: str(folder / value)
            for key in MODEL_PATHS
            if isinstance(value := agent.model.config.get(key), str) and (folder / value).is_dir()
        }
        if found:
            changes["model"] = agent.model.model_copy(update={"config": {**agent.model.config, **found}})
    return agent.model_copy(update=changes) if changes else agent


def _at(value: str, folder: Path) -> str:
    return value if "://" in value else str(folder / value)


def _within(part: Any, folder: Path) -> Any:
    """A part of the mesh as it was read, with the settings of everything that it names by its own name resolved."""
    if isinstance(part, Named):
        config = _settings(type(part), part.name, part.config, folder)
        return part if config == part.config else part.model_copy(update={"config": config})
    if isinstance(part, BaseModel):
        old = {name: getattr(part, name) for name in type(part).model_fields}
        new = {name: _within(value, folder) for name, value in old.items()}
        changed = {name: value for name, value in new.items() if value is not old[name]}
        return part.model_copy(update=changed) if changed else part
    if isinstance(part, dict | list):
        pairs = part.items() if isinstance(part, dict) else enumerate(part)
        inner = {key: _within(value, folder) for key, value in pairs}
        if all(inner[key] is value for key, value in (part.items() if isinstance(part, dict) else enumerate(part))):
            return part
        return inner if isinstance(part, dict) else list(inner.values())
    return part


def _settings(kind: type[Named], name: str, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings, as a file gives them, of something that is offered under a name."""
    model = offered.configs(kind.kind).get(name) if kind.kind and config else None
    if model is None:
        return config
    return {key: _resolved(below(model, key), value, folder) for key, value in config.items()}


def _resolved(kinds: list[Any], value: Any, folder: Path) -> Any:
    """A setting of which the file's text is ``value``, and that may be any of ``kinds``."""
    if isinstance(value, str):
        paths = any(isinstance(kind, type) and issubclass(kind, Path) for kind in kinds)
        return _at(value, folder) if paths and str not in kinds else value
    if not isinstance(value, dict | list):
        return value
    found: Any
    for kind in kinds:
        if is_model(kind, Named) and isinstance(value, dict) and len(value) == 1:
            ((name, config),) = value.items()
            found = {name: _settings(kind, name, config, folder)} if isinstance(config, dict) else value
        elif isinstance(value, dict):
            found = {key: _resolved(below(kind, key), one, folder) for key, one in value.items()}
        else:
            found = [_resolved(below(kind, number), one, folder) for number, one in enumerate(value)]
        if found != value:
            return found
    return value
