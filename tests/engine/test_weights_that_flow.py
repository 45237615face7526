"""Flows `as: weights`: the bits of plain loops, on one host and several, broken off and resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import merging
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine import teach
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.spec.read import parse
from kdmesh.streams.order import epoch_order
from kdmesh.streams.table import Table

DATA = {"dataset": "python:given"}
MakeStart = Callable[[kdmesh.Mesh], Any]


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    model.train()
    optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    optimizer.step()


def averaged(models: Sequence[nn.Module], shares: Sequence[float]) -> dict[str, Tensor]:
    """Parameters and running statistics on average, in declared order; counts and masks of the first."""
    states, found = [model.state_dict() for model in models], {}
    for name, first in states[0].items():
        found[name] = first.clone()
        if first.is_floating_point():
            found[name] = torch.zeros_like(first)
            for state, share in zip(states, shares, strict=True):
                found[name] += state[name] * torch.tensor(share / sum(shares))
    return found


def refuse_unlike(result: kdmesh.Result, modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        ours, theirs = result[name].module.state_dict(), module.state_dict()
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), (name, key)


@pytest.mark.parametrize("weight", ["samples", 1.0])
def test_federated_averaging_is_a_plain_loop(table: Table, start: MakeStart, weight: Any) -> None:
    made = kdmesh.Mesh(**merging.fedavg("spread", table, weight=weight))
    loop = start(made)
    server, parties = loop.modules["server"], [loop.modules[name] for name in merging.PARTIES]
    rows = [loop.found.streams["own"].rows_for(name) for name in merging.PARTIES]
    sizes = [len(own) for own in rows]
    assert len(set(sizes)) == 3
    optimizers = [torch.optim.SGD(party.parameters(), lr=0.1, fused=True) for party in parties]
    x, y = loop.found.table.x, loop.found.table.y
    epoch = [0, 0, 0]
    for _ in range(3):
        for number, name in enumerate(merging.PARTIES):
            for _ in range(2):
                order = epoch_order(0, "own", epoch[number], sizes[number], name)
                epoch[number] += 1
                for at in order.split(8):
                    own = rows[number][at]
                    descend(parties[number], optimizers[number], x[own], y[own])
        server.load_state_dict(averaged(parties, sizes if weight == "samples" else [1.0] * 3))
        for party in parties:
            party.load_state_dict(server.state_dict())
    refuse_unlike(made.run(backend="inline"), loop.modules)


@pytest.mark.parametrize(("refresh", "every"), [("epoch", 3), ("2 steps", 2)])
def test_swa_is_torch_s(table: Table, start: MakeStart, refresh: str, every: int) -> None:
    made = kdmesh.Mesh(**merging.swa("spread", table, refresh))
    loop = start(made)
    net = loop.modules["net"]
    descent = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
    mean = AveragedModel(net)
    statistics = dict.fromkeys(["layers.2.running_mean", "layers.2.running_var"], torch.zeros(6))
    for step, at in enumerate(loop.batches(4), 1):
        descend(net, descent, loop.x[at], loop.y[at])
        if step % every == 0:
            mean.update_parameters(net)
            for name, known in statistics.items():  # torch copies buffers
                statistics[name] = known + (net.state_dict()[name] - known) / mean.n_averaged
    assert int(mean.n_averaged) == 12 // every
    found = made.run(backend="inline")
    refuse_unlike(found, {"net": net})
    ours, theirs = found["mean"].module.state_dict(), {**mean.module.state_dict(), **statistics}
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_neighbours_on_average_are_a_plain_loop(table: Table, start: MakeStart) -> None:
    made = kdmesh.Mesh(**merging.gossip("spread", table))
    loop = start(made)
    models = loop.modules
    descents = {name: torch.optim.AdamW(model.parameters(), lr=0.01, fused=True) for name, model in models.items()}
    for step, at in enumerate(loop.batches(3), 1):
        for name, model in models.items():
            descend(model, descents[name], loop.x[at], loop.y[at])
        if step % 4 == 0:  # moments and counts of the optimiser stay
            mixed = {n: averaged([models[n], models[o]], [2.0, 1.0]) for n, o in zip("abcd", "dabc", strict=True)}
            for name, state in mixed.items():
                models[name].load_state_dict(state)
    refuse_unlike(made.run(backend="inline"), models)


def test_a_soup_is_what_finished_agents_are_on_average(table: Table) -> None:
    fields = {
        "data": table,
        "agents": {
            **{name: {"model": merging.MODEL, "init_of": "soup"} for name in "abc"},
            "soup": {"model": merging.MODEL, "update": "merged"},
            "student": {"model": merging.MODEL},
        },
        "flows": [
            {"from": "labels", "to": list("abc"), "objective": "ce"},
            {"from": ["a", "b", "c"], "to": "soup", "as": "weights"},
            {"from": "soup", "to": "student", "as": "weights"},
            {"from": "soup", "to": "student", "objective": "kl"},
        ],
        "train": {"epochs": 2, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.1}}},
        "seed": 2,
    }
    fields["agents"]["b"]["train"] = {"epochs": 3}
    made = kdmesh.Mesh(**fields)
    assert [stage.name for stage in made.plan().stages] == ["a", "b", "c", "soup", "student"]
    result = made.run(backend="inline")
    agents = [result[name].module for name in "abc"]
    expected = averaged(agents, [1.0, 1.0, 1.0])
    for name, value in result["soup"].module.state_dict().items():
        assert torch.equal(value, expected[name])
    assert result.summary["agents"]["soup"]["role"] == "average"
    assert result["student"].weights_sha256 != result["soup"].weights_sha256
    before = {name: result[name].weights_sha256 for name in "abc"}
    del fields["flows"][2]  # the student starts from weights of its own
    again = kdmesh.Mesh(**fields).run(backend="inline")
    assert {name: again[name].weights_sha256 for name in "abc"} == before
    assert again["student"].weights_sha256 != result["student"].weights_sha256


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many chunks were run, and before which one to break off; checkpoints after every step."""
    monkeypatch.setattr(teach, "SECONDS", 0.0)
    monkeypatch.setattr(teach, "WINDOW", 2)
    known = {"made": 0, "last": 0}
    inner = InlineBackend.call

    def call(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        known["made"] += method == "run"
        if known["last"] and known["made"] == known["last"]:
            raise Killed
        return inner(self, host, method, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    return known


def run(fields: Any, table: Table, **more: Any) -> dict[str, Any]:
    """What must not depend on breaks and places."""
    summary = run_once(Request(parse(fields), "inline", table=table, checkpoint_seconds=0, **more))[0]
    return {name: (one["weights_sha256"], one["forwards"], one["metrics"]) for name, one in summary["agents"].items()}


def started(placement: Any, data: Any) -> dict[str, Any]:
    """Starts from a finished agent's weights, which must not be taken again."""
    fields = merging.swa(placement, data)
    fields["agents"]["first"] = {"model": merging.MODEL}
    fields["flows"] += [
        {"from": "labels", "to": "first", "objective": "ce"},
        {"from": "first", "to": "net", "as": "weights"},
    ]
    return fields


@pytest.mark.parametrize("fields", [merging.fedavg, merging.swa, merging.gossip, started])
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    table: Table, fields: Any, tmp_path: Path, calls: dict[str, int]
) -> None:
    expected: dict[str, Any] = {}
    for placement, parts in (("together", (1, 3)), ("spread", (2,))):
        calls.update(made=0, last=0)
        found = run(fields(placement, DATA), table)
        expected = expected or found
        assert found == expected
        whole = calls["made"]
        for part in parts:
            calls.update(made=0, last=whole * part // 4 + 1)
            out = tmp_path / f"{placement}{part}"
            with pytest.raises(KeyboardInterrupt):
                run(fields(placement, DATA), table, out=out)
            calls.update(made=0, last=0)
            (folder,) = out.glob("*/*")
            assert run(fields(placement, DATA), table, resume=folder) == expected
            assert 0 < calls["made"] < whole


def pooled(rule: Any, include_self: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "agents": {name: {"model": merging.MODEL} for name in "abc"},
        "consensus": {"all": {"rule": rule, "include_self": include_self}},
        "flows": [
            {"from": "labels", "to": ["a", "b", "c"], "objective": "ce"},
            {"from": ["a", "b", "c"], "to": "all", "as": "weights", "refresh": "round"},
            {"from": "all", "to": ["a", "b", "c"], "as": "weights"},
        ],
        "program": [{"of": ["a", "b", "c"], "repeat": 2, "do": [{"train": ["a", "b", "c"], "epochs": 1}, *more["do"]]}],
        "train": {"batch_size": 32, "optimizer": {"sgd": {"lr": 0.1}}},
        "placement": "spread",
    }


def rounds(loop: Any, mix: Callable[[list[dict[str, Tensor]]], dict[int, dict[str, Tensor]]]) -> dict[str, nn.Module]:
    """Two rounds of an epoch, after which states are mixed."""
    models = list(loop.modules.values())
    descents = [torch.optim.SGD(model.parameters(), lr=0.1, fused=True) for model in models]
    for step, at in enumerate(loop.batches(2), 1):
        for model, descent in zip(models, descents, strict=True):
            descend(model, descent, loop.x[at], loop.y[at])
        if step % 3 == 0:
            for number, state in mix([model.state_dict() for model in models]).items():
                models[number].load_state_dict(state)
    found: dict[str, nn.Module] = loop.modules
    return found


def of(states: list[dict[str, Tensor]], call: Callable[[list[Tensor]], Tensor]) -> dict[str, Tensor]:
    """A state of which each floating point entry is what a call makes of the states'."""
    return {
        name: call([state[name] for state in states]) if first.is_floating_point() else first.clone()
        for name, first in states[0].items()
    }


def test_a_rule_combines_weights(table: Table, start: MakeStart) -> None:
    made = kdmesh.Mesh(data=table, **pooled("median", do=[{"publish": ["a", "b", "c"]}]))
    expected = rounds(
        start(made), lambda states: dict.fromkeys(range(3), of(states, lambda v: torch.stack(v).median(0).values))
    )
    refuse_unlike(made.run(backend="inline"), expected)


def test_leave_one_out_is_of_the_others(table: Table, start: MakeStart) -> None:
    made = kdmesh.Mesh(data=table, **pooled("mean", False, do=[{"publish": ["a", "b", "c"]}]))

    def others(states: list[dict[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        left = [[state for other, state in enumerate(states) if other != number] for number in range(3)]
        return {n: of(two, lambda v: v[0] * torch.tensor(0.5) + v[1] * torch.tensor(0.5)) for n, two in enumerate(left)}

    refuse_unlike(made.run(backend="inline"), rounds(start(made), others))


def test_who_does_not_publish_is_absent(table: Table, start: MakeStart) -> None:
    fields = pooled({"weighted": {"weights": [1, 5, 3]}}, do=[{"publish": ["a", "c"]}])
    with pytest.raises(MeshError, match=r"flows\.1\.refresh: weights of b flow where .* no line does"):
        kdmesh.Mesh(data=table, **fields).run(backend="inline")
    fields["program"].append({"of": "b", "publish": "b"})  # alone: all take its weights, which are theirs already
    made = kdmesh.Mesh(data=table, **fields)

    def two(states: list[dict[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        shares = torch.tensor([1.0, 3.0]) / 4
        mixed = of([states[0], states[2]], lambda v: v[0] * shares[0] + v[1] * shares[1])
        return dict.fromkeys(range(3), mixed)

    refuse_unlike(made.run(backend="inline"), rounds(start(made), two))
