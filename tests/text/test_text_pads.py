"""What a tokenizer or a model leaves open: a pad token, what is done to logits, a mask that is not needed."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import architecture, batch, bpe, model
from text_meshes import classified, gpt, modelled

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


def student(texts: Path, folder: Path, without: tuple[str, ...], pad: int | None = None, **more: Any) -> dict[str, Any]:
    """A classifier made from a folder whose tokenizer lacks some special tokens; ``pad``: what its config says."""
    tokenizer = copy.deepcopy(bpe())
    for name in without:
        setattr(tokenizer, name, None)
    net = model(config=architecture("gpt2"), labels=["animal", "colour", "number"]).net
    net.config.pad_token_id = pad
    net.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return {
        **classified(texts),
        "agents": {"s": {"model": {"hf": {"path": str(folder / "model"), "max_length": 48, **more}}}},
        "connect": [],
        "flows": [{"from": "labels", "to": "s", "objective": "ce"}],
        "train": {"epochs": 1, "batch_size": 24},
    }


ENDLESS = ("pad_token", "eos_token", "sep_token")


@pytest.mark.parametrize(
    ("without", "pad", "more", "token"),
    [
        (("pad_token",), None, {}, "</s>"),
        (("pad_token",), 3, {}, "<unk>"),
        (ENDLESS, 0, {}, "<pad>"),
        (ENDLESS, None, {"pad_token": "<unk>"}, "<unk>"),
        (("pad_token",), None, {"pad_token": "<unk>"}, "<unk>"),
    ],
)
def test_a_missing_pad_token_is_chosen_and_said(texts, tmp_path, without, pad, more, token) -> None:
    found = examine(make_plan(parse(student(texts, tmp_path, without, pad, **more)), registry()))
    assert found.reading.encoder("s").tokenizer.pad_token == token
    said = f"s pads with {token!r}, for its tokenizer names no pad token"
    assert (said in found.notes) == (not more)


def test_the_pad_token_is_saved_with_the_student(texts: Path, tmp_path: Path) -> None:
    mesh = student(texts, tmp_path, ("pad_token",))
    result = kdmesh.Mesh(**mesh).run(backend="inline", out=tmp_path / "runs")
    saved = kdmesh.load(result.folder / "agents" / "s")
    assert saved.tokenizer.pad_token == "</s>"
    assert saved.model.net.config.pad_token_id == saved.tokenizer.pad_token_id
    together, alone = saved(["the red bird", "a cat that sat on my very old mat"]), saved(["the red bird"])
    assert torch.allclose(together[:1], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("without", "more", "what"),
    [
        (("pad_token",), {"pad_token": "[nope]"}, "the tokenizer has no token '[nope]'"),
        (ENDLESS, {}, "no pad token, and none that ends a text"),
    ],
)
def test_a_pad_token_that_is_none_is_refused_with_what_to_write(texts, tmp_path, without, more, what) -> None:
    with pytest.raises(MeshError) as error:
        examine(make_plan(parse(student(texts, tmp_path, without, **more)), registry()))
    assert what in error.value.what and error.value.where == "agents.s.model.hf.pad_token"
    assert "<s>" in error.value.instead and "<unk>" in error.value.instead


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "cohere", "bloom"])
def test_a_model_without_weights_is_known_to_send_what_the_model_sends(kind: str) -> None:
    from kdmesh.text.build import build

    own = {"config": architecture(kind), "attention": "eager"}
    with torch.device("meta"):
        light = build(task="language_modelling", vocabulary=len(bpe()), **own)
    real = model("language_modelling", **own)
    assert light.projects == real.projects == (kind not in ("gemma2", "cohere"))
    x = batch(task="language_modelling")
    assert light(x.to(torch.device("meta"))).shape == real(x).shape


def test_a_capped_model_is_said_to_send_logits(texts: Path) -> None:
    mesh = modelled(texts)
    for name in ("t1", "s"):
        mesh["agents"][name]["model"] = gpt(16)
    mesh["agents"]["t2"]["model"] = gpt(16)
    mesh["agents"]["t2"]["model"]["hf"] |= {"config": architecture("gemma2"), "attention": "eager"}
    from kdmesh.checks import texts as checks

    plan = make_plan(parse(mesh), registry())
    lines = checks.crossings(plan, examine(plan))
    assert any("t1 sends hidden rows" in line for line in lines)
    assert any("t2 sends logits: " in line and "of 300 logits" in line and "hidden" not in line for line in lines)
    assert not any("t2 sends hidden" in line for line in lines)
    from kdmesh.text.sizes import sizes

    offer = registry().find("models", "hf").config
    tokens = {"tokenizer": {"bpe": {"vocabulary": 300}}}
    for settings, width in (
        ({}, None),
        ({"final_logit_softcapping": None}, 16),
        ({"final_logit_softcapping": 9.0}, None),
    ):
        own = offer.model_validate({"config": {**architecture("gemma2"), "vocab_size": 300, **settings}, **tokens})
        assert sizes(own) == (width, 300)


def test_no_mask_is_asked_for_where_padding_is_not_seen(caplog: pytest.LogCaptureFixture) -> None:
    import transformers

    transformers.utils.logging.enable_propagation()
    try:
        for kind in ("gpt2", "llama"):
            made = model("language_modelling", config={**architecture(kind), "pad_token_id": 0})
            made(batch(["a cat", "the cat sat on the mat"], "language_modelling"))
    finally:
        transformers.utils.logging.disable_propagation()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
