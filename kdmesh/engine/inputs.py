"""What a run is made of beside its data: weights, folders of models and tokenizers, code, plugins, modules given.

Each has its sum in the run's manifest, so that a run which goes on refuses what has changed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from kdmesh.files import sha256
from kdmesh.imports import sources
from kdmesh.plugins import KINDS, carried, registry
from kdmesh.spec import Named
from kdmesh.spec.paths import MODEL_PATHS
from kdmesh.text.source import PICKLED, commit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from kdmesh.spec import MeshSpec

Sums = dict[str, str]


def inputs(spec: MeshSpec) -> dict[str, Any]:
    """The sums of the files that agents and chosen streams are made from, by their place in the mesh.

    A hub id counts by its commit.
    """
    found: dict[str, Any] = {
        f"streams.{name}.select": sha256(Path(stream.select))
        for name, stream in spec.streams.items()
        if stream.select is not None
    }
    for name, agent in spec.agents.items():
        for key, value in ({} if agent.model is None else agent.model.config).items():
            if not isinstance(value, str) or not (os.path.isabs(value) or key in MODEL_PATHS):
                continue
            path = Path(value).expanduser()
            known: Any = None
            if path.is_dir():
                known = {file.name: sha256(file) for file in sorted(path.iterdir()) if _is_read(file)}
            elif path.is_file():
                known = sha256(path)
            elif key in MODEL_PATHS:
                known = commit(value, agent.model.config.get("revision")) if agent.model is not None else None
            if known is not None:
                found[f"agents.{name}.model.{key}"] = known
    return found


def _is_read(file: Path) -> bool:
    return file.is_file() and file.suffix not in PICKLED and not file.name.startswith(".")


def code(spec: MeshSpec) -> Sums:
    """The sums of the modules that a mesh names and of their own imports; of installed ones, the versions."""
    refs = [agent.model for agent in spec.agents.values() if agent.model is not None]
    filters = [ref for stream in spec.streams.values() for ref in stream.filters.values()]
    data = [spec.data.dataset] if spec.data is not None else []
    verifiers = [ref for stream in spec.streams.values() for ref in stream.reward or ()]
    names = [ref.name for ref in (*refs, *filters, *data, *verifiers) if ref.is_import]
    rules = [stream.rule for stream in spec.streams.values() if stream.rule is not None]
    names += [path for ref in rules for path in ref.paths.values()]
    names += [path for ref in (*spec.metrics, *verifiers) if ":" in (path := str(ref.config.get("path", "")))]
    found: Sums = {}
    for name in dict.fromkeys(name.partition(":")[0] for name in names):
        if name != "python":  # data given from Python
            found |= sources(name)
    return found


def plugins(spec: MeshSpec) -> Sums:
    """The sum of each file of the folder of plugins, and the versions of those that a mesh uses."""
    found = {name: hashlib.sha256(text.encode()).hexdigest() for name, _, text in carried()["files"]}
    for ref in _refs(spec):
        if ref.kind in KINDS and not ref.is_import and ref.name in registry().names(ref.kind):
            origin = registry().origin(ref.kind, ref.name)
            if origin is not None and origin.version:
                found[origin.name] = str(origin)
    return dict(sorted(found.items()))


def _refs(value: Any) -> Iterator[Named]:
    """Everything that a part of a mesh chooses by name."""
    if isinstance(value, Named):
        yield value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _refs(getattr(value, field))
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _refs(item)


def given(modules: Mapping[str, nn.Module]) -> Sums:
    """The sums of the weights with which modules were given from Python."""
    import torch

    found = {}
    for name, module in modules.items():
        total = hashlib.sha256()
        for key, value in module.state_dict().items():
            total.update(key.encode())
            if torch.is_tensor(value) and not value.is_meta:
                total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        found[name] = total.hexdigest()
    return found
