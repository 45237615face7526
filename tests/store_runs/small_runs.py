"""A frozen teacher and a student on made-up points, inline, with the store of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.check import examine
from kdmesh.hosts.host import Host
from kdmesh.hosts.packing import unpack
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.streams.table import Table

CPU = torch.device("cpu")
Published = dict[str, tuple[Any, dict[str, Tensor]]]


def points(n: int, seed: int, features: int = 8) -> tuple[Tensor, Tensor]:
    """``x [n, features]`` and which of three fixed directions each lies most along."""
    x = torch.randn(n, features, generator=torch.Generator().manual_seed(seed))
    return x, (x @ torch.randn(features, 3, generator=torch.Generator().manual_seed(99))).argmax(1)


def table(seed: int = 0) -> Table:
    """90 samples to learn from, 40 for validation, 40 for test."""
    return kdmesh.data(points(90, seed), points(40, 1), points(40, 2), classes=3)


def mesh(
    data: Table | None = None, teacher: Any = None, flow: Any = None, train: Any = None, **more: Any
) -> kdmesh.Mesh:
    """``teacher``, ``flow``, ``train``: their fields, over the usual ones."""
    settings = {"epochs": 3, "batch_size": 32, "forward_size": 32, "optimizer": {"sgd": {"lr": 0.1}}, **(train or {})}
    made = kdmesh.Mesh(data=table() if data is None else data, train=settings, **more)
    own = {"model": {"mlp": {"hidden": [16]}}, "update": "frozen", "seed": 1, **(teacher or {})}
    made.agent("t", own.pop("model"), **own)
    made.agent("s", {"mlp": {"hidden": [12]}})
    made.flow("labels", "s", objective="ce")
    made.flow("t", "s", **{"objective": "kl", **(flow or {})})
    return made


def run(made: kdmesh.Mesh, store: str | Path, **more: Any) -> dict[str, Any]:
    """The summary of a run in this process."""
    return made.run(backend="inline", store=str(store), **more).summary


def said(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on the store: all figures, and the bits of all weights."""
    return {name: (agent["weights_sha256"], agent["metrics"]) for name, agent in summary["agents"].items()}


def host(made: kdmesh.Mesh, store: str | Path) -> Host:
    """The one host of a mesh, opened and not run; ``store``: "" for none."""
    plan = made.plan()
    found = examine(plan, made._modules, made.table)
    backend = InlineBackend()
    config = HostConfig(plan, made._modules, found.shapes, tokenizers=found.reading.files(), store=str(store))
    backend.open(config, Source(made.table))
    (one,) = backend.hosts.values()
    assert isinstance(one, Host)
    return one


def published(one: Host, stream: str = "train") -> Published:
    """What the teacher says of a stream, by output."""
    outputs = tuple(dict.fromkeys(edge.output for edge in one.plan.edges if edge.source == "t"))
    return {key.output: value for key, value in unpack(one.publish("t", stream, outputs), CPU).items()}
