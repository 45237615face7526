"""Texts that writers wrote before come from the store: to the same bits, and nothing is written anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from test_text_rollouts import changed, mesh, sequence

from kdmesh.backends import Session
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse
from kdmesh.text import generate


def frozen(refresh: str, **sampling: Any) -> dict[str, Any]:
    """A frozen writer, and a student that learns what it writes."""
    fields = mesh(generated_by="t", refresh=refresh, sampling={"max_new_tokens": 4, **sampling})
    flows = [{"from": "labels", "to": "s", "objective": "ce", "stream": "rollouts"}]
    agents = {name: one for name, one in fields["agents"].items() if name != "u"}
    return {**fields, "agents": agents, "flows": flows}


CASES = {
    "learned first": sequence(),
    "frozen, once": frozen("once"),
    "frozen, greedy": frozen("once", greedy=True),
    "frozen, each step": frozen("step", samples=2),
    "frozen, that stops": frozen("once", stop=["1"]),
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each batch had that was written."""
    found: list[int] = []
    write = generate._texts

    def counted(batch: Any, *args: Any) -> Any:
        found.append(len(batch))
        return write(batch, *args)

    monkeypatch.setattr(generate, "_texts", counted)
    return found


def said(fields: dict[str, Any], store: str | Path, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What must not depend on the store, and what a summary says of the store."""
    summary, _, _ = run_once(Request(parse(fields), "inline", store=str(store)), **more)
    agents = {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}
    return agents, summary.get("store", {})


@pytest.mark.parametrize("case", CASES)
def test_a_second_run_writes_nothing_anew(case: str, tmp_path: Path, written: list[int]) -> None:
    without, _ = said(CASES[case], "off")
    every = sum(written)
    cold, first = said(CASES[case], tmp_path)
    assert sum(written) == 2 * every and first["agents"]["t"]["written"] >= every > 0
    warm, second = said(CASES[case], tmp_path)
    assert sum(written) == 2 * every and without == cold == warm
    assert second["agents"]["t"]["found"] >= every and second["agents"]["t"]["foreign"] == 0
    assert "t" not in second["not_kept"] or "written anew" in second["not_kept"]["t"]


SHORTER = {"generated_by": "t", "prompts": "train", "refresh": "once", "sampling": {"max_new_tokens": 3}}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"streams": {"rollouts": SHORTER}},
        {"train": {"epochs": 2, "batch_size": 5, "forward_size": 4}},
    ],
    ids=["seed", "sampling", "batches"],
)
def test_what_would_be_written_otherwise_is_written(change: dict[str, Any], tmp_path: Path, written: list[int]) -> None:
    said(frozen("once"), tmp_path)
    before, other = sum(written), changed(frozen("once"), **change)
    stored, _ = said(other, tmp_path)
    assert sum(written) > before
    assert stored == said(other, "off")[0]


def test_a_part_of_a_store_gives_the_same_texts(tmp_path: Path, written: list[int]) -> None:
    """Batches that are lost are written again as they were, and no other."""
    without, _ = said(frozen("once"), "off")
    said(frozen("once"), tmp_path)
    entries = [one.parent for one in tmp_path.rglob("entry.json") if '"texts"' in one.read_text()]
    (shards,) = (sorted((one / "shards").iterdir()) for one in entries)
    assert len(shards) > 1
    shards[0].unlink()
    before = sum(written)
    again, _ = said(frozen("once"), tmp_path)
    assert again == without and 0 < sum(written) - before < 24
    shutil.rmtree(entries[0])
    assert said(frozen("once"), tmp_path)[0] == without


def test_writers_that_learn_as_they_write_keep_nothing(tmp_path: Path) -> None:
    _, told = said(mesh(), tmp_path)
    assert "s" not in told["agents"] and not any('"texts"' in one.read_text() for one in tmp_path.rglob("entry.json"))


@pytest.mark.parametrize("greedy", [True, False])
def test_what_a_frozen_agent_is_measured_by_is_kept(greedy: bool, tmp_path: Path, written: list[int]) -> None:
    """Of the student alone is written anew what metrics of texts measure, which changes."""
    fields = frozen("once") | {
        "metrics": ["exact_match"],
        "text": {"decoding": {"max_new_tokens": 3, "greedy": greedy}},
    }
    without, _ = said(fields, "off")
    every = sum(written)
    cold, _ = said(fields, tmp_path)
    before = sum(written)
    assert before == 2 * every
    warm, told = said(fields, tmp_path)
    student = sum(written) - before
    assert without == cold == warm and "exact_match" in warm["t"][1]["test"]
    assert told["agents"]["t"]["found"] >= every - student > 0 < student
    flow = {"from": "labels", "to": "s", "objective": "ce"}
    said({**fields, "flows": [flow]} | {"streams": {}, "agents": {"s": fields["agents"]["s"]}}, "off")
    assert sum(written) - before == 2 * student  # as many as a student writes that is measured by itself


@pytest.mark.ray
def test_on_ray(tmp_path: Path, ray_session: Session) -> None:
    fields = {**frozen("once"), "placement": "spread"}
    without, _ = said(frozen("once"), "off")
    for _ in range(2):
        summary, _, _ = run_once(Request(parse(fields), store=str(tmp_path)), session=ray_session)
        assert {name: one["weights_sha256"] for name, one in summary["agents"].items()} == {
            name: one[0] for name, one in without.items()
        }
    assert summary["store"]["agents"]["t"]["found"] >= 24
