"""Adapters, half precision and recomputed activations, in whole meshes and read again from the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import llama, modelled

import kdmesh


@pytest.mark.parametrize("adapter", [{"lora": {"rank": 2, "targets": "all-linear"}}, {"prefix": {"length": 3}}])
def test_a_student_that_trains_an_adapter_only(texts: Path, tmp_path: Path, adapter: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    mesh = modelled(texts)
    mesh["agents"]["s"]["model"] = llama(16, **adapter)
    result = kdmesh.Mesh(**mesh).run(backend="inline", out=tmp_path)
    module = result["s"].module
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert 0 < trained < 0.5 * sum(p.numel() for p in module.parameters())
    folder = result.folder / "agents" / "s"  # type: ignore[operator]
    assert (folder / "adapter").is_dir()
    again, text = kdmesh.load(folder), "the red bird"
    with torch.no_grad():
        logits = again([text])
        encoded, _ = again.encoder.encode(texts_of(text))
        own = module(encoded.whole())
    # merging adds the low-rank product to the weights before instead of after: float32 rounding
    torch.testing.assert_close(logits, own.dense(), rtol=0, atol=1e-5)


def texts_of(text: str) -> Any:
    from kdmesh.streams.texts import Sample, Texts

    return Texts([Sample(text)])


def test_half_precision_and_recomputed_activations(texts: Path) -> None:
    def loss(**more: Any) -> float:
        mesh = modelled(texts)
        mesh["agents"]["s"]["model"]["hf"] |= {"gradient_checkpointing": more.pop("recompute", False)}
        mesh["train"] |= more
        return float(kdmesh.Mesh(**mesh).run(backend="inline")["s"].metrics["test"]["loss"])

    plain = loss()
    assert loss(recompute=True) == pytest.approx(plain, abs=1e-5)  # the same numbers, computed again
    assert loss(precision="bf16") == pytest.approx(plain, abs=0.05)  # eight bits of mantissa
