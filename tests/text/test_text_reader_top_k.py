"""A student asks a language model about its own likeliest tokens: equal bits wherever they live, and few numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import bert, classified, distilled, gpt, llama
from text_runs import student

import kdmesh
from kdmesh.backends import Session
from kdmesh.engine.check import check
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.host import Host
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

ASKED = {"reader_top_k": {"k": 8}}


def taught(path: Path, signal: Any = ASKED, objective: Any = "reverse_kl", **more: Any) -> dict[str, Any]:
    """A causal teacher and a student that asks it."""
    return distilled(path, signal, objective, **more)


@pytest.mark.parametrize("tail", ["spread", "bucket", "renormalise"])
def test_language_models_learn_the_same_together_and_spread(texts: Path, tail: str) -> None:
    signal = {"reader_top_k": {"k": 8, "tail": tail}}
    found = [student(taught(texts, signal), where) for where in ("together", "spread")]
    assert found[0] == found[1]
    assert student(taught(texts, {"top_k": signal["reader_top_k"]}), "together") != found[0]
    assert student(taught(texts, "logits"), "together") != found[0]


@pytest.mark.ray
def test_on_ray_they_are_the_same(texts: Path, ray_session: Session) -> None:
    assert student(taught(texts), "spread", ray_session) == student(taught(texts), "together")


@pytest.mark.ray
def test_peers_on_ray_ask_each_other(texts: Path, ray_session: Session) -> None:
    flows = [
        {"from": "labels", "to": ["a", "s"], "objective": "ce"},
        {"from": ["a", "s"], "to": ["a", "s"], "objective": "jsd", "signal": ASKED},
    ]
    mesh = taught(texts, agents={"a": {"model": llama(16)}, "s": {"model": gpt(8)}}, flows=flows)
    assert student(mesh, "spread", ray_session) == student(mesh, "spread") == student(mesh, "together")


def test_all_tokens_are_as_good_as_logits(texts: Path) -> None:
    found = []
    for signal in ({"reader_top_k": {"k": 300}}, "logits"):
        result = kdmesh.Mesh(**taught(texts, signal)).run(backend="inline")
        found.append(torch.cat([value.flatten() for value in result["s"].module.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_of_vocabularies_of_unequal_size_only_what_both_have_is_asked_for(texts: Path) -> None:
    agents = {"t": {"model": gpt(24), "update": "frozen"}, "s": {"model": gpt(8)}}
    for name, columns in (("t", 320), ("s", 304)):
        agents[name]["model"]["hf"]["config"]["vocab_size"] = columns
    found = [
        student(taught(texts, signal, agents=agents, text={"vocabulary": "prefix"}), where)
        for signal in (ASKED, {"reader_top_k": {"k": 304}})
        for where in ("together", "spread")
    ]
    assert found[0] == found[1] != found[2] == found[3]
    more = taught(texts, {"reader_top_k": {"k": 310}}, agents=agents, text={"vocabulary": "prefix"})
    with pytest.raises(MeshError, match=r"flows\.0\.signal: .*likeliest 310 of 304 outputs"):
        student(more, "together")


def test_the_store_gives_the_same(texts: Path, tmp_path: Path) -> None:
    found = [
        kdmesh.Mesh(**taught(texts)).run(backend="inline", store=where).summary["agents"]
        for where in ("off", tmp_path, tmp_path)
    ]
    assert len({agents["s"]["weights_sha256"] for agents in found}) == 1
    made = [agents["t"]["forwards"]["made"] for agents in found]
    assert made[0] > 0 and made[2] == 0


def test_texts_are_classified_by_what_is_asked(texts: Path) -> None:
    flow = {"from": "t", "to": "s", "objective": "reverse_kl", "signal": {"reader_top_k": {"k": 2}}}
    agents = {"t": {"model": bert(16), "update": "frozen"}, "s": {"model": bert(8, 1, None)}}
    mesh = {**classified(texts), "agents": agents, "train": {"steps": 3, "batch_size": 8}, "flows": [flow]}
    del mesh["connect"]
    assert student(mesh, "together") == student(mesh, "spread")


def test_objectives_that_align_characters_are_refused(texts: Path) -> None:
    with pytest.raises(MeshError, match="'span' compares those of others"):
        student(taught(texts, objective="span"), "together")


def test_few_numbers_cross(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, set[str]] = {}
    run = Host.run

    def spied(host: Host, *given: Any) -> Any:
        exports, report = run(host, *given)
        for (_, op), packed in exports.items():
            sent.setdefault(op.label(set()), set()).update(name for name, _, _ in packed)
        return exports, report

    monkeypatch.setattr(Host, "run", spied)
    student(taught(texts), "spread")
    made = 'reader_top_k{"k": 8} for s'
    assert sent == {"f.s": {f"{made}, of t"}, "a.t": {made}}


def test_the_check_says_how_many_numbers_cross(texts: Path) -> None:
    lines = check(make_plan(parse(taught(texts)), registry()))
    (said,) = [line for line in lines if line.startswith("t sends")]
    tokens = int(said.split(": ")[2].split()[0])
    assert said.startswith(
        f't sends reader_top_k{{"k": 8}} for s: {tokens} tokens a step, {tokens * 17:,} numbers in place of '
    )
