"""What code a mesh names, and would have imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.spec.mesh import MeshSpec

TRUSTED = "trust_remote_code"  # a model's setting: the folder or hub id whose own code is run


def named(mesh: MeshSpec) -> dict[str, str]:
    """The import paths, and the folders whose code is trusted, each by its place in the file."""
    found = {}
    for name, agent in mesh.agents.items():
        if agent.model is not None and agent.model.is_import:
            found[f"agents.{name}.model"] = agent.model.name
        elif agent.model is not None and agent.model.config.get(TRUSTED):
            found[f"agents.{name}.model.{agent.model.name}.{TRUSTED}"] = f"code in {agent.model.config[TRUSTED]}"
    for number, metric in enumerate(mesh.metrics):
        path = metric.config.get("path")
        if isinstance(path, str) and ":" in path:
            found[f"metrics.{number}.{metric.name}.path"] = path
    for name, stream in mesh.streams.items():
        for field, ref in stream.filters.items():
            if ref.is_import:
                found[f"streams.{name}.{field}"] = ref.name
        if stream.rule is not None:
            found.update((f"streams.{name}.rule.{at}", path) for at, path in stream.rule.paths.items())
    if mesh.data is not None and mesh.data.dataset.is_import:
        found["data.dataset"] = mesh.data.dataset.name
    return found


def refuse_code(mesh: MeshSpec, file: str = "") -> None:
    """MeshError for a mesh that names code."""
    for where, what in named(mesh).items():
        raise MeshError(
            f"would import {what}", where=where, file=file, instead="leave --no-code out, where you trust this file"
        )


def told(mesh: MeshSpec) -> list[str]:
    """What is imported, a line each."""
    places: dict[str, list[str]] = {}
    for where, what in named(mesh).items():
        places.setdefault(what, []).append(where)
    return [f"imports {what} ({', '.join(where)})" for what, where in places.items()]
