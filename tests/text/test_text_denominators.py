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


def moved_by_kept(batch_size: int, accumulate: int, precision: str = "fp32") -> torch.Tensor:
    """The same of an update over texts that a frozen agent wrote, of which filters drop some."""
    stream: dict[str, Any] = {
        "generated_by": "t",
        "prompts": "train",
        "refresh": "once",
        "keep": [{"pattern": {"match": "[0-4]"}}],
    }
    stream["sampling"] = {"max_new_tokens": 4}
    mesh = kdmesh.Mesh(
        task="language_modelling",
        data={"dataset": {"sums": {"below": 8}}, "train": 24},
        agents={
            "t": {"model": llama(16, vocabulary=None), "update": "frozen", "train": {"precision": "fp32"}},
            "s": {"model": llama(8, vocabulary=None), "seed": 3},
            "start": {"model": llama(8, vocabulary=None), "seed": 3, "update": "frozen"},
        },
        streams={"rollouts": stream},
        flows=[
            {"from": "labels", "to": "s", "stream": "rollouts", "objective": "ce", "weight": 0.3},
            {"from": "t", "to": "s", "stream": "rollouts", "objective": "jsd", "weight": 0.7},
        ],
        train={
            "steps": accumulate,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "precision": precision,
            "optimizer": SGD,
            "forward_size": 8,
        },
        placement="together",
    )
    result = mesh.run(backend="inline", store="off")
    tally = result.summary["streams"]["rollouts"]
    assert 0 < tally["kept"] < tally["written"] == 24
    pairs = zip(result["s"].module.parameters(), result["start"].module.parameters(), strict=True)
    return torch.cat([(after - before).flatten() for after, before in pairs])


@pytest.mark.parametrize(("size", "times"), [(12, 2), (7, 4), (1, 24)], ids=["halves", "unequal", "one by one"])
def test_texts_that_filters_drop_count_in_no_batch(size: int, times: int) -> None:
    """One by one, batches of which nothing is kept stand between the others."""
    whole = moved_by_kept(24, 1)
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(moved_by_kept(size, times), whole, rtol=0, atol=2e-6)


def test_in_half_precision_they_count_as_little() -> None:
    whole = moved_by_kept(24, 1)
    for size, times in ((24, 1), (7, 4)):
        half = moved_by_kept(size, times, "bf16")
        assert 0 < (half - whole).norm() < 0.05 * whole.norm()  # eight bits of mantissa
