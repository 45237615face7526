"""Texts, inline, all agents on one host and each on its own, and on Ray: equal bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, classified, gpt, labelled, llama, modelled

from kdmesh.backends import Session
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse


def outcome(mesh: dict[str, Any], placement: str, session: Session) -> dict[str, Any]:
    summary, _, _ = run_once(Request(parse({**mesh, "placement": placement})), session=session)
    return {name: (facts["weights_sha256"], facts["metrics"]) for name, facts in summary["agents"].items()}


def rounds(path: Path) -> dict[str, Any]:
    """A teacher, and students that refine in rounds through a consensus on unlabelled texts."""
    students = ["s1", "s2"]
    council = {"rounds": {"teachers": "t", "students": students, "rounds": 2, "stream": "transfer"}}
    models = {"t": bert(24), "s1": bert(8), "s2": bert(8, 1, None)}
    return {
        **classified(path),
        "agents": {name: {"model": model} for name, model in models.items()},
        "connect": [council],
        "train": {"epochs": 1, "batch_size": 8},
    }


def peers(path: Path) -> dict[str, Any]:
    """Two language models of one tokenizer that teach each other at every step, packed."""
    return modelled(
        path,
        agents={"a": {"model": llama(16)}, "b": {"model": gpt(16)}},
        connect=[{"mutual": {"peers": ["a", "b"]}}],
        text={"pack": True, "bucket": True},
        train={"epochs": 2, "batch_size": 8, "accumulate": 2},
    )


def several(path: Path) -> dict[str, Any]:
    """Several labels a text, and a mean of teachers label by label."""
    return labelled(path.parent, "multi_label", train={"epochs": 1, "batch_size": 8})


def valued(path: Path) -> dict[str, Any]:
    """Values of a text, and teachers weighted by their errors on validation, which cross with what they publish."""
    mesh = labelled(path.parent, "regression", train={"epochs": 1, "batch_size": 8})
    mesh["connect"][0]["ensemble"]["consensus"] = "inverse_variance"
    return mesh


def ranked(path: Path) -> dict[str, Any]:
    """Two cross-encoders of unlike tokenizers and a bi-encoder that hears their mean, on the lists of each text."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")]
    lists = path.with_name("lists.jsonl")
    lists.write_text(
        "\n".join(
            json.dumps({"query": one["text"], "positive": two["text"], "negative": [three["text"]] * (1 + at % 2)})
            for at, (one, two, three) in enumerate(zip(rows, rows[3:], rows[4:], strict=False))
        ),
        encoding="utf-8",
    )
    columns = {name: name for name in ("query", "positive", "negative")}
    ensemble = {"teachers": ["t1", "t2"], "student": "s", "objective": "margin_mse", "labels": 0.5}
    models = {"t1": bert(24), "t2": gpt(16, 1, None), "s": bert(8, bi_encoder={"similarity": "cosine", "scale": 5})}
    return {
        **classified(path),
        "task": "ranking",
        "data": {"dataset": {"text": {"path": str(lists), **columns}}},
        "agents": {name: {"model": model} for name, model in models.items()},
        "connect": [{"ensemble": ensemble}],
    }


MESHES = {
    "classified": classified,
    "modelled": modelled,
    "rounds": rounds,
    "peers": peers,
    "several": several,
    "valued": valued,
    "ranked": ranked,
}


SELDOM = ("several", "modelled")
"""Slow ones: `classified` and `valued` are of samples too, `peers` of language models."""


@pytest.mark.ray
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SELDOM)) for name in MESHES])
def test_texts_inline_and_on_ray_give_equal_bits(name: str, texts: Path, ray_session: Session) -> None:
    mesh, inline = MESHES[name](texts), Session("inline")
    expected = outcome(mesh, "together", inline)
    assert outcome(mesh, "spread", inline) == expected
    assert outcome(mesh, "spread", ray_session) == expected
    if name == "classified":  # one actor has nothing to send, whatever the mesh
        assert outcome(mesh, "together", ray_session) == expected
