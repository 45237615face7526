"""Small meshes on made-up points, run inline in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.check import examine
from kdmesh.engine.events import Events
from kdmesh.engine.run import Run
from kdmesh.errors import HostLost
from kdmesh.hosts.host import Host
from kdmesh.hosts.modules import build
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.plugins import registry
from kdmesh.streams.order import epoch_order
from kdmesh.streams.table import Table

MODEL = {"mlp": {"hidden": [8]}}
MakeMesh = Callable[..., kdmesh.Mesh]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Agents compute with one thread, so what a test computes by hand does too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def points(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """``x [n, 8]`` and which of three fixed directions each lies most along."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return x, (x @ torch.randn(8, 3, generator=torch.Generator().manual_seed(99))).argmax(1)


@pytest.fixture
def table() -> Table:
    """90 samples to learn from, 40 for validation, 40 for test."""
    return kdmesh.data(points(90, 0), points(40, 1), points(40, 2), classes=3)


@pytest.fixture
def mesh(table: Table) -> MakeMesh:
    """Make a mesh: ``mesh(["a", "b"], seed=3, train={"epochs": 1}, **fields)``; an agent may bring its own fields."""

    def make(agents: list[str] | dict[str, dict[str, Any]], *, train: Any = None, **fields: Any) -> kdmesh.Mesh:
        length = {} if "steps" in (train or {}) else {"epochs": 3}
        settings = {**length, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.1}}, **(train or {})}
        made = kdmesh.Mesh(data=fields.pop("data", table), train=settings, **fields)
        for name in agents:
            own = dict(agents[name]) if isinstance(agents, dict) else {}
            own_model = own.pop("model", None if {"weights_of", "update"} & own.keys() else MODEL)
            made.agent(name, own_model, **own)
        return made

    return make


@pytest.fixture
def broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], kdmesh.Mesh]], Iterator[Any]]:
    """Run a mesh five times inline, each losing a host at another call; gives the summary of each."""
    call, open_ = InlineBackend.call, InlineBackend.open
    calls, last, given = 0, 0, []

    def mortal(self: Any, host: str, method: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            error = HostLost(f"{host} was lost")
            error.host = host
            raise error
        return call(self, host, method, *args, **options)

    def opened(self: Any, *args: Any) -> None:
        given[:] = args
        open_(self, *args)

    def run(make: Callable[[], kdmesh.Mesh]) -> Iterator[Any]:
        nonlocal calls, last
        monkeypatch.setattr(InlineBackend, "call", mortal)
        monkeypatch.setattr(InlineBackend, "open", opened)
        monkeypatch.setattr(InlineBackend, "lost", lambda self: [], raising=False)
        monkeypatch.setattr(InlineBackend, "rebuild", lambda self, plan: open_(self, *given))
        calls, last = 0, 0
        make().run(backend="inline", out=tmp_path / "whole", checkpoint_seconds=0)
        every = calls
        for part in range(1, 6):
            calls, last = 0, every * part // 6
            found = make().run(backend="inline", out=tmp_path / f"broken{part}", checkpoint_seconds=0)
            assert calls > every, f"call {last} of {every} broke nothing off"
            yield found.summary

    return run


class Start:
    """What a plain loop begins with: initial modules by agent, the samples of train, and the order of each epoch."""

    def __init__(self, made: kdmesh.Mesh) -> None:
        self.plan = made.plan()
        self.found = examine(self.plan, made._modules, made.table, writers=made._writers)
        table, rows = self.found.table, self.found.streams["train"].rows
        assert table.y is not None
        self.x, self.y, self.size = table.x[rows], table.y[rows], self.plan.spec.train.batch_size
        self.modules: dict[str, nn.Module] = {
            name: build(self.plan, owner, self.found.reading, registry(), made._modules)
            for name, owner in self.plan.owner.items()
        }

    def batches(self, epochs: int) -> list[Tensor]:
        """Positions of every batch."""
        orders = [epoch_order(self.plan.spec.seed, "train", epoch, len(self.x)) for epoch in range(epochs)]
        return [at for order in orders for at in order.split(self.size)]


@pytest.fixture
def start() -> type[Start]:
    """``start(mesh)``: what a plain loop begins with."""
    return Start


@pytest.fixture
def opened() -> Callable[[kdmesh.Mesh], tuple[Run, dict[str, Host]]]:
    """Open a mesh inline without running it; returns the run and its hosts."""

    def open_(made: kdmesh.Mesh) -> tuple[Run, dict[str, Host]]:
        plan = made.plan()
        found = examine(plan, made._modules, made.table)
        backend = InlineBackend()
        backend.open(HostConfig(plan, made._modules, found.shapes), Source(made.table))
        return Run(plan, found, backend, Events()), backend.hosts

    return open_


@pytest.fixture
def hashes() -> Callable[[kdmesh.Mesh], dict[str, str]]:
    """Run a mesh inline and return the sha256 of every agent's weights."""

    def run(made: kdmesh.Mesh) -> dict[str, str]:
        return {name: agent.weights_sha256 for name, agent in made.run(backend="inline").agents.items()}

    return run
