"""A token counts the same, however a batch is cut: accumulated, padded, packed, or together with others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import llama

import kdmesh

SGD = {"sgd": {"lr": 1.0}}


def moved(texts: Path, batch_size: int, accumulate: int, *, pack: bool = False, bucket: bool = False) -> torch.Tensor:
    """How far one update over the same 24 samples moves every weight: with SGD at rate 1 minus the gradient."""
    agents: dict[str, Any] = {
        "t": {"model": llama(24), "update": "frozen"},
        "s": {"model": llama(16), "seed": 3},
        "start": {"model": llama(16), "seed": 3, "update": "frozen"},
    }
    mesh = kdmesh.Mesh(
        task="language_modelling",
        data={"dataset": {"text": {"path": str(texts), "text": "text"}}, "train": 24},
        text={"pack": pack, "bucket": bucket},
        agents=agents,
        flows=[
            {"from": "labels", "to": "s", "stream": "train", "objective": "ce", "weight": 0.3},
            {"from": "t", "to": "s", "stream": "train", "objective": "jsd", "weight": 0.7, "refresh": "once"},
        ],
        train={"steps": accumulate, "batch_size": batch_size, "accumulate": accumulate, "optimizer": SGD},
        placement="together",
    )
    result = mesh.run(backend="inline")
    pairs = zip(result["s"].module.parameters(), result["start"].module.parameters(), strict=True)
    return torch.cat([(after - before).flatten() for after, before in pairs])


@pytest.mark.parametrize(
    ("size", "times", "more"),
    [
        (12, 2, {}),
        (7, 4, {}),
        (1, 24, {}),
        (24, 1, {"pack": True}),
        (5, 5, {"pack": True}),
        (8, 3, {"bucket": True}),
    ],
    ids=["halves", "unequal", "one by one", "packed", "packed, unequal", "alike in length"],
)
def test_however_a_batch_is_cut_the_gradient_is_the_same(
    texts: Path, size: int, times: int, more: dict[str, bool]
) -> None:
    whole = moved(texts, 24, 1)
    assert whole.abs().max() > 1e-3
    # float32: products of other shapes round otherwise, and sums run in another order
    torch.testing.assert_close(moved(texts, size, times, **more), whole, rtol=0, atol=2e-6)
