"""Forwards, taps, and what crosses between hosts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.hosts.agent import Agent, reseed
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.packing import pack, unpack
from kdmesh.hosts.taps import Taps
from kdmesh.spec import TrainSpec

CPU = torch.device("cpu")


def agent(module: nn.Module, **taps: str) -> Agent:
    return Agent("a", LocalWeights("a", module, TrainSpec()), None, taps)


def test_answers_do_not_depend_on_how_many_are_asked() -> None:
    torch.manual_seed(0)
    one = agent(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12)))
    x = torch.randn(40, 8)
    whole, _ = one.inference(x, 16)
    assert torch.equal(whole[:16], one.inference(x[:16], 16)[0])
    assert torch.equal(whole[32:], one.inference(x[32:], 16)[0])
    assert not whole.requires_grad
    assert one.forwards == 3 + 1 + 1


def test_an_answer_is_given_in_eval_mode_and_the_mode_comes_back() -> None:
    one = agent(nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)))
    one.module.train()
    x = torch.randn(4, 8)
    assert torch.equal(one.inference(x, 4)[0], one.inference(x, 4)[0])
    assert one.module.training


def test_taps_capture_named_layers_only_while_asked() -> None:
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    one = agent(module, mid="1")
    x = torch.randn(5, 8)
    logits, values = one.forward(x, ("mid", "0"))
    assert torch.equal(values["mid"], values["0"].relu())
    assert torch.equal(module[2](values["mid"]), logits)
    assert one.forward(x)[1] == {}
    assert not module[1]._forward_hooks
    _, stilled = one.inference(x, 4, ("mid",))
    assert stilled["mid"].shape == (5, 6)


def test_an_unknown_layer_is_refused_with_the_nearest() -> None:
    with pytest.raises(MeshError, match="no layer 'heed'") as error:
        Taps(nn.Sequential(), {"t": "heed"}, "agents.a")
    assert error.value.where == "agents.a.taps.t"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_what_crosses_arrives_equal_and_private(dtype: torch.dtype) -> None:
    value = torch.tensor([[1.0, 0.0], [2.0, 3.0]]).to(dtype)
    packed = pack((value, {"tap": value[0], "none": None}))
    arrays = [array for _, _, parts in packed for _, array, _ in parts]
    assert len(arrays) == 2 and all(isinstance(array, np.ndarray) for array in arrays)
    for array in arrays:
        array.flags.writeable = False  # as Ray hands it over
    ((logits, taps),) = unpack({"key": packed}, CPU).values()
    assert logits.dtype == dtype and torch.equal(logits, value) and set(taps) == {"tap"}
    logits.zero_()
    assert torch.equal(unpack({"key": packed}, CPU)["key"][0], value)


def test_reseeding_makes_dropout_repeat() -> None:
    layer, x = nn.Dropout(0.5), torch.ones(64)
    reseed(5, CPU)
    first = layer(x)
    assert not torch.equal(first, layer(x))
    reseed(5, CPU)
    assert torch.equal(first, layer(x))


def test_answers_are_where_a_device_without_a_number_puts_them() -> None:
    """`cuda` is not equal to `cuda:0`, on which its tensors are; nor is `cpu:0` to `cpu`, which there is everywhere."""
    assert torch.device("cpu:0") != torch.zeros(1, device="cpu:0").device
    settings = TrainSpec().model_copy(update={"device": "cpu:0"})
    agent = Agent("a", LocalWeights("a", nn.Linear(4, 3), settings), None, {}, outputs=(3,))
    assert agent.forward(torch.zeros(2, 4))[0].shape == (2, 3)
    with pytest.raises(ValueError, match=r"it gave a tensor of shape \(2, 3\), torch.float32, on meta"):
        agent.module = nn.Linear(4, 3, device="meta")
        agent.forward(torch.zeros(2, 4, device="meta"))
