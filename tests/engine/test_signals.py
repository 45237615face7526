"""Signals that are made where their agent lives, exits of one network, and flows that inform a rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kdmesh
from kdmesh.contracts.rule import Rule
from kdmesh.errors import MeshError
from kdmesh.hosts.publications import Key
from kdmesh.offers import Config, ConsensusOffer, SignalOffer
from kdmesh.plugins import registry


class SharpConfig(Config):
    """How sharp."""

    by: float = 2.0


class Sharp:
    """``by * logits``."""

    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, value: Tensor) -> Tensor:
        return self.by * value


def wide(value: Tensor) -> Tensor:
    """Make no sense of a layer."""
    raise OverflowError("too wide")


class Branches(nn.Module):
    """Two heads on one trunk; what it returns itself is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(8, 6)
        self.heads = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.trunk(x).relu()
        return self.heads[0](hidden) + self.heads[1](hidden)


class Told(Rule):
    """The mean of the sources, with a bias made of what informs it."""

    def setup(self, sources: tuple[str, ...], classes: int, inputs: tuple[torch.Size, ...]) -> None:
        self.sources, self.shapes = sources, inputs
        self.bias = nn.Linear(inputs[0].numel(), classes)

    def forward(self, values: Tensor, *, inputs: list[Tensor | None], **given: Any) -> Tensor:
        assert inputs[0] is not None
        return values.mean(0) + self.bias(inputs[0])


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin would offer."""
    signals, rules = registry()._offers["signals"], registry()._offers["consensus"]
    monkeypatch.setitem(signals, "sharp", SignalOffer("sharp", f"{__name__}:Sharp", SharpConfig, form="logits"))
    monkeypatch.setitem(signals, "wide", SignalOffer("wide", f"{__name__}:Wide", reads="hidden", form="hidden"))
    told = ConsensusOffer("told", f"{__name__}:Told", trained=True, spaces=("logits",), inputs=True)
    monkeypatch.setitem(rules, "told", told)


def Wide() -> Any:
    """Make the signal `wide`."""
    return wide


FROZEN = {"teacher": {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}}


@pytest.mark.parametrize("refresh", ["step", "once", "epoch"])
def test_votes_teach_as_one_hot_probabilities(mesh: Any, hashes: Any, refresh: str) -> None:
    """Votes live, and from the store, are the same; they differ from what the logits teach."""
    found = []
    for signal, period in (("votes", refresh), ("votes", "step"), ("logits", "step")):
        made = mesh({**FROZEN, "s": {}})
        made.flow("teacher", "s", objective="kl", signal=signal, refresh=period)
        found.append(hashes(made)["s"])
    if refresh != "epoch":  # the first epoch of which is a burn-in
        assert found[0] == found[1]
    assert found[1] != found[2]


def test_a_signal_has_settings_and_is_what_its_readers_see(mesh: Any, opened: Any) -> None:
    made = mesh({**FROZEN, "s": {}}, train={"steps": 1})
    made.flow("teacher", "s", objective="mse", signal={"sharp": {"by": 3.0}}, refresh="once")
    (edge,) = made.plan().edges
    assert (edge.output, edge.form) == ('sharp{"by": 3.0}', "logits")
    run, hosts = opened(made)
    run.execute()
    host = hosts["host0"]
    kept = host.publications.get(Key("teacher", "train", edge.output))
    assert host.publications.get(Key("teacher", "train")) is None  # the logits themselves are not kept
    logits, _ = host.agents["teacher"].inference(
        host.loader.shard("train", "teacher", torch.device("cpu")).x, host.forward_size("teacher")
    )
    assert torch.equal(kept.values, 3.0 * logits)


def test_only_what_others_read_leaves_a_host(mesh: Any, opened: Any) -> None:
    made = mesh({**FROZEN, "s": {}, "t": {}}, placement={"here": ["teacher", "t"], "there": ["s"]})
    made.flow("teacher", "s", objective="kl", signal="votes", refresh="step")
    made.flow("teacher", "t", objective="kl", refresh="step")
    run, hosts = opened(made)
    sent: list[Any] = []
    inner = hosts["here"].run

    def spy(fragment: Any, *imports: Any) -> Any:
        exports, report = inner(fragment, *imports)
        sent.extend(exports.values())
        return exports, report

    hosts["here"].run = spy
    run.execute()
    assert sent and {name for packed in sent for name, _, _ in packed} == {"votes"}


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ({"objective": "kl", "signal": "vots"}, "did you mean 'votes'"),
        ({"objective": "kl", "signal": {"votes": {"k": 1}}}, "unknown setting|extra|not known|k"),
        ({"objective": "kl", "signal": "hidden", "tap": "layers.0"}, "does not read hidden"),
        ({"objective": "hint", "signal": "wide"}, "tap: layers.0"),
        ({"objective": "hint", "signal": "wide", "tap": "layers.0"}, "signal 'wide' of kdmesh failed.*too wide"),
    ],
)
def test_a_signal_that_cannot_be_is_refused(mesh: Any, flow: dict[str, Any], said: str) -> None:
    made = mesh({**FROZEN, "s": {}})
    made.flow("teacher", "s", **flow)
    with pytest.raises(MeshError, match=said):
        made.run(backend="inline")


def test_exits_of_one_network_learn_from_one_forward(mesh: Any, opened: Any) -> None:
    made = mesh([], train={"steps": 1, "optimizer": {"sgd": {"lr": 1.0}}})
    torch.manual_seed(0)
    net = Branches()
    made.agent("a", net, exit="heads.0")
    made.agent("b", weights_of="a", exit="heads.1")
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("b", "a", objective="mse", refresh="step")
    run, hosts = opened(made)
    host = hosts["host0"]
    run._schedule({stage.name: 1 for stage in run.plan.stages})
    module = host.weights["a"].module
    assert [agent.forwards for agent in host.agents.values()] == [1, 0]
    shard = host.loader.shard("train", "a", torch.device("cpu"))
    batch = shard.batch(0, 32, False)
    hidden = net.trunk(batch.x).relu()
    one, two = net.heads[0](hidden), net.heads[1](hidden)
    loss = F.cross_entropy(one, batch.y) + F.cross_entropy(two, batch.y) + (one - two.detach()).square().sum() / 32
    for before, after, gradient in zip(
        net.parameters(), module.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True
    ):
        torch.testing.assert_close(before - gradient, after)


def test_an_agent_with_an_exit_comes_back_with_it(mesh: Any, tmp_path: Path) -> None:
    made = mesh({})
    made.agent("a", f"{__name__}:Branches", exit="heads.0")
    made.agent("b", weights_of="a", exit="heads.1")
    made.flow("labels", ["a", "b"], objective="ce")
    result = made.run(backend="inline", out=tmp_path)
    x = torch.randn(5, 8)
    for number, name in enumerate("ab"):
        network = result[name].module.network
        expected = network.heads[number](network.trunk(x).relu())
        assert torch.equal(result[name].module(x), expected)
        assert torch.equal(kdmesh.load(result.folder / "agents" / name)(x), expected)


def test_an_exit_that_does_not_exist_is_refused_where_it_was_written(mesh: Any) -> None:
    made = mesh({"a": {"exit": "layrs.0"}})
    with pytest.raises(MeshError, match=r"agents\.a\.exit"):
        made.run(backend="inline")


@pytest.mark.parametrize("refresh", ["step", "once"])
def test_a_rule_is_informed_by_a_layer_and_trains_with_its_reader(mesh: Any, opened: Any, refresh: str) -> None:
    frozen = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}
    made = mesh({"a": frozen, "b": frozen, "s": {}}, train={"steps": 2})
    made.consensus("c", "told")
    made.flow(["a", "b"], "c", refresh=refresh)
    made.flow("a", "c", **{"as": "input"}, signal="hidden", tap="layers.0", refresh=refresh)
    made.flow("c", "s", objective="kl", detach=False)
    run, hosts = opened(made)
    rule = hosts["host0"].consensus["c"].rule
    assert rule.sources == ("a", "b") and rule.shapes == (torch.Size([8]),)
    before = rule.bias.weight.detach().clone()
    summary = run.execute()
    assert not torch.equal(before, rule.bias.weight)
    assert summary["consensus"]["c"]["metrics"]["test"]["accuracy"] >= 0


def test_a_rule_that_lacks_or_does_not_take_what_informs_it_is_refused(mesh: Any) -> None:
    for rule, informed, said in (("told", False, "there is none"), ("mean", True, "takes no flow")):
        made = mesh(["a", "b", "s"])
        made.consensus("c", rule)
        made.flow(["a", "b"], "c", refresh="step")
        if informed:
            made.flow("a", "c", **{"as": "input"}, refresh="step")
        made.flow("c", "s", objective="kl", detach=False)
        with pytest.raises(MeshError, match=said):
            made.plan()
