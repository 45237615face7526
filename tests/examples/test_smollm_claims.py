"""The meshes of `make smollm` differ in who teaches and on what, and in nothing else; it goes on where it stopped."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import smollm_claims

    yield smollm_claims
    sys.modules.pop("smollm_claims")


def test_every_arm_has_the_same_student_data_and_updates(claims: Any) -> None:
    from kdmesh.graph.planner import make_plan
    from kdmesh.plugins import registry
    from kdmesh.spec.read import read_mesh

    found = {arm: read_mesh(claims.MESHES / f"{arm}.yaml") for arm in claims.ARMS}
    plans = {arm: make_plan(spec, registry()) for arm, spec in found.items()}
    shared = [
        {key: spec.dump().get(key) for key in ("task", "data", "metrics", "text", "train")} for spec in found.values()
    ]
    assert all(one == shared[0] for one in shared)
    students = [spec.agents["student"].model_dump() for spec in found.values()]
    assert all(one == students[0] for one in students)
    drawn = {
        arm: [(edge.source, edge.stream) for edge in plan.edges if edge.target == "student"]
        for arm, plan in plans.items()
    }
    assert drawn == {
        "alone": [("labels", "train")],
        "off-policy": [("teacher", "train")],
        "on-policy": [("teacher", "rollouts")],
        "both": [("teacher", "rollouts")],
        "sequence-level": [("labels", "answers")],
    }


def results(*of: tuple[str, int, float]) -> dict[tuple[str, int], dict[str, Any]]:
    test = {(arm, seed): {"test": {"perplexity": value, "rouge_l": 1 / value}} for arm, seed, value in of}
    return {key: {"arm": key[0], "seed": key[1], "agents": {"student": one}} for key, one in test.items()}


def test_what_is_there_is_told_though_some_is_missing(claims: Any) -> None:
    some = results(
        ("alone", 0, 40.0), ("alone", 1, 42.0), ("both", 0, 30.0), ("both", 1, 31.0), ("off-policy", 0, 20.0)
    )
    said = list(claims.lines(some))
    assert "        off-policy: 20" in said and "        alone: 41 ± 13  (40, 42)" in said
    assert any(line.startswith("  both minus alone: -10.5 ± 6.4") and line.endswith("(n 2)") for line in said)
    assert not any("off-policy minus" in line for line in said)


def test_only_what_is_missing_is_made(claims: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []

    def trained(arm: str, seed: int, out: Path, steps: int | None) -> dict[str, Any]:
        made.append((arm, seed))
        return {**results((arm, seed, 9.0))[arm, seed], "seconds": 0.0}

    monkeypatch.setattr(claims, "trained", trained)
    monkeypatch.setattr(claims, "converted", lambda gguf, out: out)
    monkeypatch.setattr(claims, "split", lambda folder, model, out: {})
    monkeypatch.setattr("sys.argv", ["smollm_claims", "model", "data", "--out", str(tmp_path), "--seeds", "2"])
    claims.main()
    assert made == [(arm, seed) for seed in range(2) for arm in claims.ARMS]
    (tmp_path / "results" / "both-1.json").unlink()
    claims.main()
    assert made[10:] == [("both", 1)]
    assert len(claims.done(tmp_path)) == 10


def test_parts_share_no_prompt_and_depend_on_no_seed(
    claims: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Words:
        def apply_chat_template(self, turns: list[dict[str, str]], **_: Any) -> str:
            return turns[0]["content"]

        def __call__(self, text: str) -> Any:
            return type("Ids", (), {"input_ids": text.split()})

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda path: Words())
    rows = [{"instruction": f"say {at % 90}", "input": "x " * (at % 70), "output": f"{at}"} for at in range(200)]
    with gzip.open(tmp_path / claims.FILE, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = claims.split(tmp_path, tmp_path, tmp_path)
    parts = {name: (tmp_path / f"{name}.jsonl").read_text().splitlines() for name in found}
    prompts = [json.loads(line)["messages"][0]["content"] for lines in parts.values() for line in lines]
    assert len(prompts) == len(set(prompts)) == sum(found.values())
    assert found["test"] == claims.TEST and found["validation"] == claims.VALIDATION and found["train"] > 100
    assert max(len(one.split()) for one in prompts) <= claims.PROMPT < 71
    claims.split(tmp_path, tmp_path, tmp_path)
    assert parts == {name: (tmp_path / f"{name}.jsonl").read_text().splitlines() for name in found}
