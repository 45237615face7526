"""Top-k logits between language models: equal bits wherever they live, and few numbers between hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, classified, distilled, gpt, llama
from text_runs import student

from kdmesh.backends import Session
from kdmesh.engine.check import check
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.host import Host
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

TOP = {"top_k": {"k": 8}}


def taught(path: Path, refresh: str, signal: Any = TOP, **more: Any) -> dict[str, Any]:
    """A causal teacher and a student that hears what it sends."""
    return distilled(path, signal, {"kl": {"temperature": 2}}, refresh, **more)


def test_language_models_hear_the_same_live_stored_together_and_spread(texts: Path) -> None:
    found = [student(taught(texts, refresh), where) for refresh in ("step", "once") for where in ("together", "spread")]
    assert set(found) == {found[0]}
    assert student(taught(texts, "step", "logits"), "together") != found[0]


@pytest.mark.ray
@pytest.mark.parametrize("refresh", ["step", pytest.param("once", marks=pytest.mark.slow)])
def test_on_ray_they_are_the_same(texts: Path, ray_session: Session, refresh: str) -> None:
    mesh = taught(texts, refresh)
    assert student(mesh, "spread", ray_session) == student(mesh, "together")


def test_a_mixture_of_two_that_send_them(texts: Path) -> None:
    agents = {"t": {"model": gpt(24), "update": "frozen"}, "u": {"model": gpt(16), "update": "frozen"}}
    flows = [
        {"from": ["t", "u"], "to": "c", "signal": TOP, "refresh": "step"},
        {"from": "c", "to": "s", "objective": "kl"},
    ]
    mesh = taught(texts, "step", agents={**agents, "s": {"model": gpt(8)}}, consensus={"c": "mean"}, flows=flows)
    assert student(mesh, "together") == student(mesh, "spread")


def test_peers_that_train_send_them_to_each_other(texts: Path) -> None:
    flows = [
        {"from": "labels", "to": ["a", "s"], "objective": "ce"},
        {"from": ["a", "s"], "to": ["a", "s"], "objective": "jsd", "signal": TOP, "refresh": "step"},
    ]
    mesh = taught(texts, "step", agents={"a": {"model": llama(16)}, "s": {"model": gpt(8)}}, flows=flows)
    assert student(mesh, "together") == student(mesh, "spread")


def test_texts_are_classified_by_what_crosses(texts: Path) -> None:
    flow = {"from": "t", "to": "s", "objective": "kl", "signal": {"top_k": {"k": 2}}}
    agents = {"t": {"model": bert(16), "update": "frozen"}, "s": {"model": bert(8, 1, None)}}
    mesh = {**classified(texts), "agents": agents, "train": {"steps": 3, "batch_size": 8}}
    del mesh["connect"]
    found = [
        student({**mesh, "flows": [{**flow, "refresh": refresh}]}, where)
        for refresh in ("step", "once")
        for where in ("together", "spread")
    ]
    assert set(found) == {found[0]}


@pytest.mark.parametrize("refresh", ["step", "once"])
def test_fewer_bytes_cross(texts: Path, refresh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    run, publish = Host.run, Host.publish

    def count(packed: Any) -> None:
        sent.extend(array.nbytes for _, _, parts in packed for _, array, _ in parts)

    def spied_run(host: Host, *given: Any) -> Any:
        exports, losses = run(host, *given)
        for packed in exports.values():
            count(packed)
        return exports, losses

    def spied_publish(host: Host, agent: str, stream: str, outputs: tuple[str, ...], *more: Any) -> Any:
        found = publish(host, agent, stream, outputs, *more)
        for packed in found.values():
            count([part for part in packed if part[0] != "starts"])
        return found

    monkeypatch.setattr(Host, "run", spied_run)
    monkeypatch.setattr(Host, "publish", spied_publish)
    bytes_by = {}
    for name, signal in {"few": TOP, "all": "logits"}.items():
        sent.clear()
        student(taught(texts, refresh, signal), "spread")
        bytes_by[name] = sum(sent)
    assert 0 < bytes_by["few"] < bytes_by["all"]


@pytest.mark.parametrize(("refresh", "when"), [("once", "each publication (once)"), ("step", "a step")])
def test_the_check_says_how_many_numbers_cross(texts: Path, refresh: str, when: str) -> None:
    lines = check(make_plan(parse(taught(texts, refresh)), registry()))
    (said,) = [line for line in lines if line.startswith("t sends")]
    tokens = int(said.split(": ")[2].split()[0])
    apart, whole = (tokens + 300) * 24, tokens * 300
    assert said == (
        f't sends top_k{{"k": 8}}: {tokens} tokens {when}, {tokens * 17:,} numbers in place of {apart:,} '
        f"(hidden rows and the layer that maps them) or {whole:,} (logits)"
    )
