"""Texts, inline and on Ray, all agents on one host and each on its own: equal bits."""

from __future__ import annotations

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


MESHES = {"classified": classified, "modelled": modelled, "rounds": rounds, "peers": peers, "several": several}


@pytest.mark.ray
@pytest.mark.parametrize("name", MESHES)
def test_texts_inline_and_on_ray_together_and_spread_give_equal_bits(
    name: str, texts: Path, ray_session: Session
) -> None:
    mesh, inline = MESHES[name](texts), Session("inline")
    expected = outcome(mesh, "together", inline)
    assert outcome(mesh, "spread", inline) == expected
    assert outcome(mesh, "together", ray_session) == expected
    assert outcome(mesh, "spread", ray_session) == expected
