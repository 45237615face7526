"""What readers see of a source that is not live: full passes, old weights, or values as trained; never the future."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPOCHS = 3


def kl(student: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(student, -1), F.softmax(target, -1), reduction="batchmean")


@torch.no_grad()
def whole(module: nn.Module, x: Tensor, size: int) -> Tensor:
    """A full pass in batches of one size, the last one filled up with its last sample."""
    parts = [torch.cat([part, part[-1:].expand(size - len(part), -1)])[:size] for part in x.split(size)]
    return torch.cat([module(part) for part in parts])[: len(x)]


def largest(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def own_past(begun: Any, stale: str, period: int) -> nn.Module:
    """CE, and KL from the own past: by period in steps, a full pass or (`recorded`) what was said while training."""
    module = begun.modules["s"]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    seen: Tensor | None = None
    recorded = torch.zeros(len(begun.x), 3)
    for step, at in enumerate(begun.batches(EPOCHS)):
        out = module(begun.x[at])
        loss = F.cross_entropy(out, begun.y[at])
        if seen is not None:
            loss = loss + kl(out, seen[at])
        recorded[at] = out.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % period == 0:
            seen = recorded.clone() if stale == "recorded" else whole(module, begun.x, begun.size)
    return module


@pytest.mark.parametrize(
    ("refresh", "stale", "period"),
    [("epoch", "publish", 3), ("epoch", "snapshot", 3), ("epoch", "recorded", 3), ("2 steps", "publish", 2)],
)
def test_the_own_past_equals_a_plain_loop(mesh: Any, start: Any, refresh: str, stale: str, period: int) -> None:
    made = mesh(["s"])
    made.flow("labels", "s", objective="ce")
    made.flow("s", "s", objective="kl", refresh=refresh, stale=stale)
    expected = own_past(start(made), stale, period)
    assert largest(made.run(backend="inline")["s"].module, expected) == 0.0


def test_in_the_first_epoch_nobody_has_spoken(mesh: Any, hashes: Any) -> None:
    found = []
    for weight in (None, 5.0):
        made = mesh(["a", "b"], train={"epochs": 1})
        made.flow("labels", ["a", "b"], objective="ce")
        if weight is not None:
            made.flow(["a", "b"], ["a", "b"], objective="kl", refresh="epoch", weight=weight)
        found.append(hashes(made))
    assert found[0] == found[1]


def test_the_last_batch_is_replayed_with_what_was_said_on_it(mesh: Any, start: Any) -> None:
    made = mesh(["s"])
    made.connect("self", student="s", teacher="batch", weight=2.0)
    begun = start(made)
    module = begun.modules["s"]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    before: tuple[Tensor, Tensor] | None = None
    for at in begun.batches(EPOCHS):
        out = module(begun.x[at])
        loss = F.cross_entropy(out, begun.y[at])
        if before is not None:
            loss = loss + 2.0 * kl(module(begun.x[before[0]]), before[1])
        before = (at, out.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert largest(made.run(backend="inline")["s"].module, module) == 0.0


def test_a_budget_that_ends_freezes_the_agent_which_still_serves(mesh: Any, start: Any) -> None:
    made = mesh({"a": {"train": {"steps": 4}}, "b": {}})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="kl", refresh="step")
    begun = start(made)
    a, b = begun.modules["a"], begun.modules["b"]
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1, fused=True) for module in (a, b)]
    for step, at in enumerate(begun.batches(EPOCHS)):
        said, out = a(begun.x[at]), b(begun.x[at])
        losses = [F.cross_entropy(said, begun.y[at])] if step < 4 else []
        target = said.detach() if step < 4 else whole(a, begun.x[at], begun.size)
        losses.append(F.cross_entropy(out, begun.y[at]) + kl(out, target))
        for optimizer, loss in zip(optimizers[-len(losses) :], losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    result = made.run(backend="inline")
    assert largest(result["a"].module, a) == largest(result["b"].module, b) == 0.0
    assert [result.summary["agents"][name]["updates"] for name in "ab"] == [4, 9]


def test_peers_of_different_periods_publish_to_a_later_student_what_they_ended_with(mesh: Any, start: Any) -> None:
    """An epoch's publication is not what a student of the next stage reads: its teachers went on learning."""
    made = mesh({"a": {}, "b": {}, "s": {"train": {"epochs": 1}}}, train={"steps": 4})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow(["a", "b"], ["a", "b"], objective="kl", refresh="epoch")
    made.flow("a", "s", objective="kl", refresh="once")
    begun = start(made)
    result = made.run(backend="inline")
    student = begun.modules["s"]
    target = whole(result["a"].module, begun.x, begun.size)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, fused=True)
    for at in begun.batches(1):
        optimizer.zero_grad()
        kl(student(begun.x[at]), target[at]).backward()
        optimizer.step()
    assert largest(result["s"].module, student) == 0.0


def test_layers_asked_for_later_are_published_too(mesh: Any, hashes: Any) -> None:
    """A teacher answers one student in an early stage, and shows its layers to another in a later one."""
    found = []
    for hint in (False, True):
        made = mesh(["t", "a", "s"])
        made.flow("t", "a", objective="kl")
        made.flow("a", "s", objective="kl")
        if hint:
            made.flow("t", "s", objective="hint", tap="layers.0")
        found.append(hashes(made))
    assert found[0]["a"] == found[1]["a"]
    assert found[0]["s"] != found[1]["s"]


def test_mode_eval_silences_the_dropout_of_a_live_peer(mesh: Any, hashes: Any) -> None:
    found = {}
    for mode in ("auto", "train", "eval"):
        made = mesh({name: {"model": {"mlp": {"hidden": [8], "dropout": 0.5}}} for name in "ab"})
        made.flow("labels", ["a", "b"], objective="ce")
        made.flow(["a", "b"], ["a", "b"], objective="kl", refresh="step", mode=mode)
        found[mode] = hashes(made)
    assert found["auto"] == found["train"] != found["eval"]


def test_a_snapshot_gives_logits_and_layers(mesh: Any) -> None:
    made = mesh(["s"])
    made.flow("labels", "s", objective="ce")
    made.flow("s", "s", objective="kl", refresh="epoch", stale="snapshot")
    made.flow("s", "s", objective="hint", tap="layers.0", refresh="epoch", stale="snapshot")
    assert made.run(backend="inline").summary["agents"]["s"]["updates"] == 9


def test_recorded_logits_and_layers_are_both_kept(mesh: Any, opened: Any) -> None:
    made = mesh(["s"])
    made.flow("labels", "s", objective="ce")
    made.flow("s", "s", objective="kl", refresh="epoch", stale="recorded")
    made.flow("s", "s", objective="hint", tap="layers.0", refresh="epoch", stale="recorded")
    run, hosts = opened(made)
    run.execute()
    found = hosts["host0"].publications
    kept = {key.output: publication for key, publication in found._visible.items() if key.kind == "recorded"}
    assert {output: tuple(publication.values.shape) for output, publication in kept.items()} == {
        "": (90, 3),
        "layers.0": (90, 8),
    }
    assert all(publication.present.all() for publication in kept.values())


def test_plain_copies_are_no_aliases(mesh: Any, start: Any) -> None:
    """A run leaves the module that was given as it was."""
    given = nn.Sequential(nn.Linear(8, 3))
    before = copy.deepcopy(given.state_dict())
    made = mesh([])
    made.agent("s", given)
    made.flow("labels", "s", objective="ce")
    result = made.run(backend="inline")
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())
    assert largest(result["s"].module, given) > 1e-3
