"""Models whose forward moves buffers in eval mode: nothing depends on how often they were asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.hosts.agent import Agent
from kdmesh.hosts.local_weights import LocalWeights, sha256
from kdmesh.hosts.unmoved import Buffers
from kdmesh.spec import TrainSpec
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table


class Moving(nn.Module):
    """A linear layer whose answers depend on a buffer that each of them moves, in one of some ways."""

    def __init__(self, features: int = 64, classes: int = 10, how: str = "in place") -> None:
        super().__init__()
        self.how, self.layer = how, nn.Linear(features, classes)
        self.register_buffer("asked", torch.zeros(classes))
        self.register_buffer("cache", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layer(x.flatten(1))
        self.cache += 1
        if self.how == "in place":
            self.asked += made.detach().sum(0).tanh()
        elif self.how == "another":
            self.asked = self.asked + 1
        elif self.how == "larger":
            self.asked = torch.cat([self.asked[:1], self.asked]).clone()[: len(self.asked) + 1]
            return made + self.asked.sum() + len(self.asked)
        elif self.how == "answered":  # the answer is the buffer itself
            self.asked.add_(made.detach()[0])
            return self.asked.expand(len(x), -1)
        return made + self.asked


WAYS = ("in place", "another", "larger", "answered")


def agent(module: nn.Module) -> Agent:
    return Agent("s", LocalWeights("s", module.eval(), TrainSpec()), None, {})


@pytest.mark.parametrize("how", WAYS)
def test_every_answer_is_the_first(how: str) -> None:
    torch.manual_seed(0)
    module, x = Moving(8, 3, how), torch.randn(6, 8)
    one, before = agent(module), sha256(module)
    first = one.inference(x, 4)[0]  # of two batches, each asked as if there were no other
    alone = [one.inference(part, 4)[0] for part in (x[:4], x[4:])]
    assert torch.equal(torch.cat(alone), first)
    assert torch.equal(one.inference(x, 4)[0], first)
    assert sha256(module) == before and one.buffers.moved == "asked"
    module.train()
    one.forward(x)
    assert sha256(module) != before  # training may move what it likes
    module.eval()
    trained = sha256(module)
    again = one.inference(x, 4)[0]
    assert torch.equal(one.inference(x, 4)[0], again) and not torch.equal(again, first)
    assert sha256(module) == trained


def test_a_norm_that_stays_in_train_mode_leaves_no_trace_of_what_it_was_asked() -> None:
    """Of an instance norm, whose statistics torch moves without a version, no less."""

    class Restless(nn.Sequential):
        def train(self, mode: bool = True) -> Restless:
            self.training = mode  # the parts stay as they are
            return self

    for norm, x in (
        (nn.BatchNorm1d(3), torch.randn(6, 3)),
        (nn.InstanceNorm1d(3, track_running_stats=True), torch.randn(6, 3, 4)),
    ):
        module = Restless(nn.Identity(), norm)
        one, before = agent(module), sha256(module)
        assert torch.equal(one.inference(x, 6)[0], one.inference(x, 6)[0])
        assert one.buffers.moved == "1.running_mean" and sha256(module) == before


def test_what_does_not_move_is_copied_once_and_never_back() -> None:
    module = nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3)).eval()
    kept, x = Buffers(module), torch.randn(6, 8)
    kept.note()
    noted, before = list(kept._noted), [copy.clone() for copy in kept._copies]
    for _ in range(3):
        module(x)
        assert not kept.changed()
        kept.note()
    assert all(one is other for one, other in zip(noted, kept._noted, strict=True))
    kept.forget()
    module.train()(x)
    module.eval()
    kept.note()  # of a module that has learned
    assert not any(torch.equal(one, other) for one, other in zip(before, kept._copies, strict=True))
    assert not kept.changed() and not kept.moved
    assert not Buffers(nn.Linear(8, 3))


def images() -> Table:
    """128 small images; scikit-learn's take seconds to import."""
    drawn = torch.Generator().manual_seed(3)
    x, y = torch.randn(128, 1, 8, 8, generator=drawn), torch.randint(10, (128,), generator=drawn)
    return Table(x, y, classes=10)


MESH = {
    "data": {"dataset": {"test_unmoved:images": {}}, "train": 64, "validation": 32, "test": 32},
    "agents": {
        "t": {"model": {"test_unmoved:Moving": {}}, "update": "frozen"},
        "p": {"model": {"test_unmoved:Moving": {"how": "another"}}},
        "s": {"model": {"mlp": {"hidden": [8]}}},
    },
    "flows": [
        {"from": "labels", "to": ["p", "s"], "objective": "ce"},
        {"from": "t", "to": "s", "objective": "kl", "refresh": "epoch"},
        {"from": "t", "to": "p", "objective": "kl", "refresh": "step"},
        {"from": "p", "to": "s", "objective": "kl", "refresh": "step", "mode": "eval"},
        {"from": "p", "to": "s", "objective": "mse", "refresh": "epoch"},
    ],
    "train": {"epochs": 2, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.05}}},
}


class Killed(BaseException):
    """The process is gone."""


def run(monkeypatch: pytest.MonkeyPatch, last: int | None = None, look: bool = False, **more: Any) -> Any:
    """Run, break off at a host's call, or look at every agent before each."""
    calls, inner = [0], InlineBackend.call

    def call(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == last:
            raise Killed
        if look and method == "run":
            for one in self.hosts.values():
                for name in one.agents:
                    one.evaluate(name, "validation")
        return inner(self, host, method, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(InlineBackend, "call", call)
        summary, _, _ = run_once(Request(parse(MESH), "inline", checkpoint_seconds=0, **more))
    found = {name: [one["weights_sha256"], one["metrics"]] for name, one in summary["agents"].items()}
    return found, calls[0], summary["notes"]


def test_a_run_does_not_depend_on_looks_nor_on_breaks_and_says_what_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls, notes = run(monkeypatch, out=tmp_path / "whole")
    said = [note for note in notes if "its buffer 'asked' moves in eval mode" in note]
    assert [note.split(":")[0] for note in said] == ["t", "p"]
    (events,) = (tmp_path / "whole").rglob("events.jsonl")
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    told = [line["text"] for line in lines if line["event"] == "note" and "moves in eval mode" in line["text"]]
    assert sorted(told) == sorted(said)  # each once
    assert run(monkeypatch, look=True)[0] == whole
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, calls * 2 // 3, out=tmp_path / "cut")
    (folder,) = (tmp_path / "cut").glob("*/*")
    again, _, notes_again = run(monkeypatch, resume=folder)
    assert again == whole and notes_again == notes


def test_frozen_weights_that_teach_in_train_mode_stay_as_they_are(mesh: Callable[..., kdmesh.Mesh]) -> None:
    """Norms use the batch's statistics and keep their own, in every step, together and spread."""
    torch.manual_seed(0)
    given, student = nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3), nn.Dropout(0.2)), nn.Linear(8, 3)
    found = []
    for mode, placement in (("train", "together"), ("train", "spread"), ("eval", "together")):
        made = mesh([], train={"steps": 4}, placement=placement)
        made.agent("t", given, update="frozen")
        made.agent("s", student)
        made.flow("t", "s", objective="kl", refresh="step", mode=mode)
        result = made.run(backend="inline")
        assert result.agents["t"].weights_sha256 == sha256(given)
        assert not any("moves in eval mode" in note for note in result.summary["notes"])
        found.append(result.agents["s"].weights_sha256)
    assert found[0] == found[1] != found[2]


def test_what_is_exported_is_what_was_given(tmp_path: Path, mesh: Callable[..., kdmesh.Mesh]) -> None:
    torch.manual_seed(0)
    given = Moving(8, 3)
    made = mesh([], train={"epochs": 1})
    made.agent("t", given, update="frozen")
    made.agent("s", {"mlp": {"hidden": [4]}})
    made.flow("t", "s", objective="kl")
    result = made.run(backend="inline", out=tmp_path)
    assert result.agents["t"].weights_sha256 == sha256(given)
    assert not given.asked.any()
