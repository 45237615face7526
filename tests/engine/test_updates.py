"""How weights are updated: accumulation, clipping, schedules, averages, shared weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from kdmesh.graph.steps import Op
from kdmesh.hosts.local_weights import sha256


def largest(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("micro", [16, 8])
def test_accumulated_batches_equal_one_large_batch(mesh: Any, micro: int) -> None:
    """90 samples: windows of 32, 32 and 26, whose last micro-batch is smaller (16 + 10, or 8 + 8 + 8 + 2)."""
    found = []
    for size, accumulate in ((32, 1), (micro, 32 // micro)):
        train = {"epochs": 3, "batch_size": size, "accumulate": accumulate}
        made = mesh(["t", "s"], train=train)
        made.flow("labels", ["t", "s"], objective="ce")
        made.flow("t", "s", objective={"kl": {"temperature": 4}})
        result = made.run(backend="inline")
        found.append(result)
        assert result.summary["agents"]["s"]["updates"] == 9
    assert largest(found[0]["s"].module, found[1]["s"].module) < 1e-6


def test_shares_of_a_window_sum_to_one(mesh: Any, opened: Any) -> None:
    """Also in the last window, which ends with the budget: steps of 32, 32, 26 in pairs over two epochs."""
    made = mesh(["s"], train={"epochs": 3, "accumulate": 2})
    made.connect("self", student="s", teacher="batch")
    _, hosts = opened(made)
    host = hosts["host0"]
    host.start("s", {"s": 5})
    host.begin("s", "main", {"s": 9}, 0, {})
    update = host._phases["s"].update
    labels, replay = (update._share(term, 2, 9) for term in update._terms([host.weights["s"]]))
    assert [labels(step) for step in range(4)] == [0.5, 0.5, 26 / 58, 32 / 58]
    assert labels(8) == 1.0
    assert [replay(step) for step in range(4)] == [0.0, 1.0, 32 / 58, 26 / 58]  # the step before's batches


def test_only_hosts_that_update_weights_load_optimisers_as_they_open(
    mesh: Any, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("kdmesh.hosts.host.load_optimizers", lambda: loaded.append("once"))
    made = mesh({"t": {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}, "s": {}}, placement="spread")
    made.flow("t", "s", objective={"kl": {"temperature": 4}})
    _, hosts = opened(made)
    assert len(hosts) == 2 and loaded == ["once", "once"]  # in the check's trial, and where s trains


def test_another_agents_budget_does_not_cut_a_window_short(mesh: Any) -> None:
    """b's budget ends in the middle of a's accumulation."""
    found = []
    for others in ([], ["b"]):
        made = mesh({"a": {}, "b": {"train": {"steps": 3}}}, train={"epochs": 2, "accumulate": 2})
        made.flow("labels", ["a", "b"], objective="ce")
        if others:  # bound into one stage, by a flow that says nothing
            made.flow("b", "a", objective="kl", refresh="step", weight=0.0)
        result = made.run(backend="inline")
        found.append((result["a"].module, result.summary["agents"]["a"]["updates"]))
    assert found[0][1] == found[1][1] == 3
    assert largest(found[0][0], found[1][0]) == 0.0


def test_gradients_are_clipped(mesh: Any, start: Any) -> None:
    made = mesh(["s"], train={"epochs": 1, "clip": 0.05})
    made.flow("labels", "s", objective="ce")
    begun = start(made)
    module = begun.modules["s"]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for at in begun.batches(1):
        optimizer.zero_grad()
        F.cross_entropy(module(begun.x[at]), begun.y[at]).backward()
        assert nn.utils.clip_grad_norm_(module.parameters(), 0.05) > 0.05
        optimizer.step()
    assert largest(made.run(backend="inline")["s"].module, module) == 0.0


def test_a_schedule_counts_updates_of_all_lessons(mesh: Any, opened: Any) -> None:
    """Two rounds of 3 micro-batches in pairs: 2 updates a round, so the cosine ends at the fourth, not the third."""
    made = mesh(
        ["s"],
        train={"accumulate": 2, "schedule": "cosine"},
        program=[{"of": ["s"], "repeat": 2, "do": [{"lesson": "one", "epochs": 1}]}],
    )
    made.flow("labels", "s", objective="ce", lesson="one")
    run, hosts = opened(made)
    rates: list[float] = []
    host = hosts["host0"]
    begin = host.start

    def start(*args: Any) -> None:
        begin(*args)
        optimizer = host.weights["s"].optimizer
        assert optimizer is not None
        optimizer.register_step_pre_hook(lambda it, *_: rates.append(it.param_groups[0]["lr"]))

    host.start = start
    run.execute()
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])


def test_bfloat16_runs_in_the_forward_only(mesh: Any) -> None:
    results = {}
    for precision in ("fp32", "bf16"):
        made = mesh(["t", "s"], train={"precision": precision})
        made.connect("ensemble", teachers="t", student="s")
        results[precision] = made.run(backend="inline")
    module = results["bf16"]["s"].module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert 0 < largest(module, results["fp32"]["s"].module) < 0.1


class Normed(nn.Module):
    """A model with buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(x))


@pytest.mark.parametrize("buffers", ["copy", "ema"])
def test_an_average_follows_with_warmup_and_buffers(mesh: Any, start: Any, buffers: str) -> None:
    made = mesh([])
    torch.manual_seed(0)
    made.agent("s", Normed())
    made.agent("e", update={"ema": {"of": "s", "decay": 0.9, "warmup": True, "buffers": buffers}})
    made.flow("labels", "s", objective="ce")
    begun = start(made)
    module, average = begun.modules["s"].train(), copy.deepcopy(begun.modules["s"])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for update, at in enumerate(begun.batches(3), 1):
        optimizer.zero_grad()
        F.cross_entropy(module(begun.x[at]), begun.y[at]).backward()
        optimizer.step()
        decay = min(1 - 1 / (update + 1), 0.9)
        with torch.no_grad():
            for own, other in zip(average.parameters(), module.parameters(), strict=True):
                own.mul_(decay).add_(other, alpha=1 - decay)
            for own, other in zip(average.buffers(), module.buffers(), strict=True):
                if buffers == "ema" and own.is_floating_point():
                    own.mul_(decay).add_(other, alpha=1 - decay)
                else:
                    own.copy_(other)
    result = made.run(backend="inline")
    assert largest(result["s"].module, module) == 0.0
    assert largest(result["e"].module, average) == 0.0


def test_an_average_of_an_average_follows_too(mesh: Any) -> None:
    made = mesh({"s": {}, "e": {"update": {"ema": {"of": "s"}}}, "f": {"update": {"ema": {"of": "e"}}}})
    made.flow("labels", "s", objective="ce")
    result = made.run(backend="inline")
    assert {name: agent["updates"] for name, agent in result.summary["agents"].items()} == {"s": 9, "e": 9, "f": 9}
    assert len({agent.weights_sha256 for agent in result.agents.values()}) == 3


def test_two_views_of_one_set_of_weights_update_it_once(mesh: Any, start: Any) -> None:
    made = mesh({"a": {}, "b": {"weights_of": "a"}})
    made.flow("labels", ["a", "b"], objective="ce")
    begun = start(made)
    module = begun.modules["a"]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for at in begun.batches(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(begun.x[at]), begun.y[at])
        (loss + F.cross_entropy(module(begun.x[at]), begun.y[at])).backward()
        optimizer.step()
    result = made.run(backend="inline")
    assert result["a"].weights_sha256 == result["b"].weights_sha256
    assert largest(result["a"].module, module) == 0.0
    assert result.summary["agents"]["b"]["updates"] == 9


def test_weights_that_only_one_of_two_views_learns(mesh: Any) -> None:
    """The other view publishes at every step: it is part of the same stage, and forwards of its own are made."""
    made = mesh({"a": {}, "clean": {"weights_of": "a", "view": {"augment": [{"drop": {"p": 0.5}}]}}})
    made.flow("labels", "a", objective="ce")
    made.flow("clean", "a", objective="kl", refresh="step")
    plan = made.plan()
    assert [stage.agents for stage in plan.stages] == [["a", "clean"]]
    assert Op("f", "clean", "train") in plan.stages[0].phases["main"].ops
    summary = made.run(backend="inline").summary
    assert [summary["agents"][name]["forwards"]["made"] for name in ("a", "clean")] == [9, 9]


def test_a_ramp_moves_a_weight_over_epochs(mesh: Any, start: Any) -> None:
    made = mesh(["s"])
    made.flow("labels", "s", objective="ce", weight={"start": 1.0, "end": 0.5, "epochs": 2})
    begun = start(made)
    module = begun.modules["s"]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for step, at in enumerate(begun.batches(3)):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(begun.x[at]), begun.y[at])
        (loss if step < 3 else 0.5 * loss).backward()
        optimizer.step()
    assert largest(made.run(backend="inline")["s"].module, module) == 0.0


def test_initial_weights_of_another(mesh: Any, opened: Any, tmp_path: Any) -> None:
    """By seed, from its file, and through an average; an explicit seed is the agent's own."""
    made = mesh({"a": {"seed": 5}, "b": {"init_of": "a"}, "c": {}})
    made.flow("labels", ["a", "b", "c"], objective="ce")
    result = made.run(backend="inline")
    assert result["a"].weights_sha256 == result["b"].weights_sha256 != result["c"].weights_sha256
    save_file(result["a"].module.state_dict(), tmp_path / "a.safetensors")
    given = {"weights": str(tmp_path / "a.safetensors")}
    made = mesh({"a": given, "b": {"init_of": "a"}, "e": {"update": {"ema": {"of": "b"}}}})
    made.flow("labels", ["a", "b"], objective="ce")
    host = opened(made)[1]["host0"]
    assert {sha256(host.weights[name].module) for name in "abe"} == {result["a"].weights_sha256}


def test_an_adapter_whose_first_gradient_comes_late_joins_momentum(mesh: Any) -> None:
    """In the first epoch nothing is published, so the hint's adapter gets its first gradient in the second."""
    made = mesh(["t", "s"], train={"epochs": 3, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}})
    made.flow("labels", ["t", "s"], objective="ce")
    made.flow("t", "s", objective="hint", tap={"of": "head", "to": "layers.0"}, refresh="epoch")
    assert made.run(backend="inline")["s"].metrics["test"]["loss"] < 2
