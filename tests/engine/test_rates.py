"""Learning-rate range tests."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

import kdmesh
from kdmesh.cli import main
from kdmesh.engine.rates import judged
from kdmesh.errors import MeshError
from kdmesh.spec.yaml12 import dump

DATA = {"dataset": "digits", "train": 256, "validation": 32, "test": 32}
MLP = {"model": {"mlp": {"hidden": [16]}}}


def fields(**train: Any) -> dict[str, Any]:
    agents = {"t": {**MLP, "train": {"epochs": 1}}, "s": MLP, "after": MLP}
    flows = [
        {"from": "labels", "to": ["t"], "objective": "ce"},
        {"from": "t", "to": "s", "objective": "kl"},
        {"from": "s", "to": "after", "objective": "kl"},
    ]
    base = {"epochs": 3, "batch_size": 64, "optimizer": {"sgd": {"lr": 0.1}}}
    return {"data": DATA, "agents": agents, "flows": flows, "train": {**base, **train}}


def test_it_is_a_plain_loop_whose_rate_rises() -> None:
    """Every loss but for the order of sums: SGD whose rate is multiplied after each update, on the same samples."""
    mesh = kdmesh.Mesh(data=DATA, train={"batch_size": 256, "optimizer": {"sgd": {"lr": 5.0}}})
    module = zeros()
    mesh.agent("a", module)
    mesh.flow("labels", "a", objective="ce")
    found = mesh.find_rate(low=1e-3, high=10.0, updates=20)
    x, y = samples(mesh)
    gamma = (10.0 / 1e-3) ** (1 / 19)
    own, losses = zeros(), []
    for update in range(20):
        loss = cross_entropy(own(x), y)
        losses.append(loss.item())
        own.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in own.parameters():
                parameter -= 1e-3 * gamma**update * parameter.grad
    assert found.losses == pytest.approx(losses, rel=1e-4)  # batches are in another order, so sums are too
    assert found.rates == pytest.approx([1e-3 * gamma**update for update in range(20)])
    assert all(value.eq(0).all() for value in module.state_dict().values()), "the given module stays as it was"


def zeros() -> nn.Module:
    """A linear model that answers nothing yet."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def samples(mesh: kdmesh.Mesh) -> tuple[torch.Tensor, torch.Tensor]:
    """What is trained on: the same split, from a run's streams."""
    from kdmesh.engine.check import examine
    from kdmesh.graph.planner import make_plan
    from kdmesh.plugins import registry
    from kdmesh.spec.read import parse

    plan = make_plan(parse(mesh._fields), registry())
    checked = examine(plan, dict(mesh._modules))
    rows = checked.streams["train"].rows
    return checked.table.x[rows], checked.table.y[rows]


def test_teachers_train_first_and_what_comes_after_is_left(tmp_path: Any, capsys: Any) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(dump(fields()))
    assert main(["find-rate", str(path), "--agent", "s", "--updates", "30", "--high", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["agent"] == "s"
    assert len(found["losses"]) == len(found["rates"]) == len(found["smoothed"]) <= 30
    assert found["rates"][0] == pytest.approx(1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.yaml"]
    assert main(["find-rate", str(path), "--agent", "t", "--updates", "60", "--low", "0.001", "--high", "1000"]) == 0
    said = capsys.readouterr()
    assert "t: training loss, smoothed, as the learning rate rises" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    assert "{sgd: {lr: " in said.out


def test_accumulated_batches_are_one_update() -> None:
    found = kdmesh.Mesh(**fields(accumulate=2)).find_rate("t", low=1e-4, high=1e-2, updates=20)
    assert len(found.losses) == 20
    assert not found.diverged


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"agent": "nobody"}, "no agent is called 'nobody'"),
        ({"agent": "s", "low": 1.0, "high": 0.1}, "no rate rises"),
        ({"agent": "s", "low": math.nan}, "no rate rises"),
        ({"agent": "s", "updates": 3}, "3 updates"),
        ({"agent": "f"}, "f has no rate"),
        ({}, "who is meant is not clear: s, u"),
        ({"agent": "r"}, "r trains in rounds, or in several lessons"),
    ],
)
def test_what_cannot_be_tested_is_refused(asked: dict[str, Any], what: str) -> None:
    given = fields()
    given["agents"] = {"t": MLP, "s": MLP, "u": MLP, "r": MLP, "f": {**MLP, "update": "frozen"}}
    given["flows"] = [
        {"from": "labels", "to": ["t", "r"], "objective": "ce"},
        {"from": ["t", "f"], "to": ["s", "u"], "objective": "kl"},
    ]
    given["program"] = [{"of": ["r"], "repeat": 2, "do": [{"lesson": "main"}]}]
    if not asked:
        del given["agents"]["r"], given["program"]
        given["flows"][0]["to"] = "t"
    with pytest.raises(MeshError, match=what) as caught:
        kdmesh.Mesh(**given).find_rate(**asked)
    assert caught.value.instead


FALLS = [2.0] * 5 + [2.0 - 0.2 * number for number in range(8)] + [0.5, 0.6, 3.0, 20.0, 90.0]


def test_where_it_falls_fastest_and_is_lowest() -> None:
    rates = [1e-5 * 2**number for number in range(len(FALLS))]
    found = judged("a", rates, FALLS)
    assert found.diverged
    assert found.fastest is not None
    assert found.lowest is not None
    assert rates[5] < found.fastest < found.lowest <= rates[15]
    flat = judged("a", rates, [2.0] * len(rates))
    assert (flat.fastest, flat.lowest, flat.diverged) == (None, None, False)
    cut = judged("a", rates, [2.0, 1.5, 1.2, None, 1.0])
    assert cut.losses == [2.0, 1.5, 1.2]
    assert cut.diverged
    assert judged("a", rates, [], True).diverged


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=60))
def test_whatever_losses_come(losses: list[float | None]) -> None:
    rates = [1e-6 * 1.3**number for number in range(len(losses))]
    found = judged("a", rates, losses)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) <= len(losses)
    assert (found.fastest is None) is (found.lowest is None)
    if found.fastest is not None and found.lowest is not None:
        assert found.rates[0] < found.fastest < found.lowest <= found.rates[-1]
