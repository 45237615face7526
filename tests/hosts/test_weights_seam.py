"""A form of weights whose module, optimiser and updates are in another process gives the bits of the local one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdmesh
from kdmesh.engine.run import Run
from kdmesh.errors import MeshError
from kdmesh.hosts import build
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.unmoved import Buffers
from kdmesh.hosts.weights import Keep, Weights

PATIENCE = 300  # seconds


def serve(pipe: Any) -> None:
    """The other process: every set of weights by its number, and the outputs that a backward may still ask for."""
    torch.set_num_threads(1)
    held: dict[int, LocalWeights] = {}
    outputs: dict[int, Tensor] = {}
    while (asked := pipe.recv()) is not None:
        number, what, given = asked
        if what == "make":
            held[number] = LocalWeights(*given)
            answer: Any = None
        elif what == "forward":
            ticket, seed, grad, x = given
            torch.manual_seed(seed)
            with torch.set_grad_enabled(grad):
                out = held[number].module(x)
            if grad:
                outputs[ticket] = out
            answer = out.detach()
        elif what == "backward":
            ticket, gradient = given
            outputs.pop(ticket).backward(gradient)
            answer = None
        elif what == "counts":
            answer = held[number].updates, held[number].moved, held[number].pending
        elif what == "follow":
            answer = held[number].follow(held[given[0]])
        else:
            answer = getattr(held[number], what)(*given)
        pipe.send(answer)


class Elsewhere:
    """The other process, as seen from here."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        self.made = self.tickets = 0

    def ask(self, number: int, what: str, *given: Any) -> Any:
        """Call there, and wait."""
        self.pipe.send((number, what, given))
        assert self.pipe.poll(PATIENCE), f"{what} gave no answer"
        return self.pipe.recv()

    def close(self) -> None:
        """End it."""
        self.pipe.send(None)
        self.process.join(PATIENCE)


class Crossing(torch.autograd.Function):
    """A forward there, and its gradient sent back."""

    @staticmethod
    def forward(ctx: Any, _anchor: Tensor, module: Proxy, x: Tensor) -> Tensor:
        ctx.module, ctx.ticket = module, module.ticket()
        out: Tensor = module.ask("forward", ctx.ticket, torch.initial_seed(), True, x)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        ctx.module.ask("backward", ctx.ticket, gradients[0])
        return torch.zeros(()), None, None


class Proxy(nn.Module):
    """Stands for a module that is elsewhere; it has no parameters of its own."""

    def __init__(self, home: Elsewhere, number: int) -> None:
        super().__init__()
        self.home, self.number, self.frozen = [home], number, False

    def ask(self, what: str, *given: Any) -> Any:
        return self.home[0].ask(self.number, what, *given)

    def ticket(self) -> int:
        self.home[0].tickets += 1
        return self.home[0].tickets

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.training:
            out: Tensor = Crossing.apply(torch.zeros((), requires_grad=True), self, x)
            return out
        answer: Tensor = self.ask("forward", 0, torch.initial_seed(), False, x)
        return answer


class Remote(Weights):
    """Every call goes to the other process."""

    spread = True
    home: Elsewhere

    def __init__(self, name: str, module: nn.Module, settings: Any, ema: Any = None) -> None:
        self.name, self.settings, self.ema = name, settings, ema
        self.home.made += 1
        self.home.ask(self.home.made, "make", name, module, settings, ema)
        self.module = Proxy(self.home, self.home.made)
        self.buffers = Buffers(self.module)
        self.module.train(module.training)

    def ask(self, what: str, *given: Any) -> Any:
        return self.module.ask(what, *given)

    @property
    def updates(self) -> int:
        return self.ask("counts")[0]

    @property
    def moved(self) -> bool | None:
        return self.ask("counts")[1]

    @property
    def pending(self) -> bool:
        return self.ask("counts")[2]

    def start(self, updates: int, extra: Iterable[nn.Parameter] = ()) -> None:
        assert not list(extra), "adapters live here, and this form's optimiser does not"
        self.ask("start", updates)

    def train(self, mode: bool = True) -> None:
        self.module.train(mode)
        self.ask("train", mode)

    def zero(self) -> None:
        self.ask("zero")

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # what reaches the proxies goes on there

    def step(self) -> None:
        self.ask("step")

    def follow(self, leader: Weights) -> None:
        self.ask("follow", leader.module.number)

    def state(self) -> dict[str, Tensor]:
        return self.ask("state")

    def load(self, state: dict[str, Tensor]) -> None:
        self.ask("load", state)

    def progress(self) -> tuple[dict[str, Any], dict[Keep, Tensor]]:
        return self.ask("progress")

    def resume(self, facts: dict[str, Any], tensors: dict[Keep, Tensor]) -> None:
        self.ask("resume", facts, tensors)

    def sha256(self) -> str:
        return self.ask("sha256")

    def size(self) -> int:
        return self.ask("size")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    home = Elsewhere()
    yield home
    home.close()


def mesh() -> kdmesh.Mesh:
    """Two peers that hear each other, an average of one, and a student of all; clipped, accumulated, with momentum."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 8, generator=generator)
    y = (x @ torch.randn(8, 3, generator=generator)).argmax(1)
    parts = [(x[at], y[at]) for at in (slice(0, 60), slice(60, 90), slice(90, 120))]
    made = kdmesh.Mesh(
        name="seam",
        data=kdmesh.data(*parts, classes=3),
        train={
            "epochs": 3,
            "batch_size": 12,
            "accumulate": 2,
            "clip": 1.0,
            "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}},
            "schedule": {"cosine": {"warmup": 0.2}},
        },
    )
    for name in ("a", "b", "s"):
        made.agent(name, {"mlp": {"hidden": [8]}})
    made.agent("m", update={"ema": {"of": "a", "decay": 0.9}})
    made.connect("mutual", peers=["a", "b"])
    made.connect("ensemble", teachers=["a", "b", "m"], student="s")
    return made


def outcome(result: kdmesh.Result) -> dict[str, Any]:
    agents = result.summary["agents"]
    return {name: (facts["weights_sha256"], facts["metrics"], facts["updates"]) for name, facts in agents.items()}


def test_weights_in_another_process_give_equal_bits(monkeypatch: pytest.MonkeyPatch, elsewhere: Elsewhere) -> None:
    local = outcome(mesh().run(backend="inline", out=None))
    monkeypatch.setattr(Remote, "home", elsewhere, raising=False)
    monkeypatch.setattr(build, "LocalWeights", Remote)
    before = elsewhere.made
    assert outcome(mesh().run(backend="inline", out=None)) == local and elsewhere.made >= before + 4


def test_weights_in_another_process_go_on_from_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    local = outcome(mesh().run(backend="inline", out=None))
    monkeypatch.setattr(Remote, "home", elsewhere, raising=False)
    monkeypatch.setattr(build, "LocalWeights", Remote)
    written: list[None] = []

    def broken(run: Run) -> None:
        written.append(None)
        if len(written) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "progressed", broken)
        with pytest.raises(KeyboardInterrupt):
            mesh().run(backend="inline", out=tmp_path, checkpoint_seconds=0)
    (folder,) = (tmp_path / "seam").iterdir()
    assert outcome(mesh().run(backend="inline", resume=folder)) == local


@pytest.mark.parametrize("through", ["", "c"], ids=["directly", "through a consensus"])
def test_weights_that_are_spread_are_not_updated_together_with_others(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Elsewhere, tmp_path: Path, through: str
) -> None:
    x, y = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    made = kdmesh.Mesh(data=kdmesh.data((x, y), test=(x, y)), train={"epochs": 1, "batch_size": 12})
    for name in ("a", "b", "s"):
        made.agent(name, {"mlp": {"hidden": [8]}})
    made.flow("labels", ["a", "b", "s"], objective="ce")
    if through:
        made.consensus("c", "mean", space="logits")
        made.flow(["a", "b"], "c", refresh="step", detach=False)
    made.flow(through or "a", "s", objective="mse", detach=False)
    made.plan()
    monkeypatch.setattr(Remote, "home", elsewhere, raising=False)
    monkeypatch.setattr(build, "LocalWeights", Remote)
    said = "which are therefore updated together, and the weights of a are not all in one process"
    with pytest.raises(MeshError, match=said) as error:
        made.run(backend="inline", out=tmp_path)
    assert error.value.where == "agents.a" and "detach: true" in str(error.value) and not any(tmp_path.iterdir())
