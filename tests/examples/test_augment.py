"""A few labelled texts become more: a language model writes them, encoders vote on them, a student learns of these."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from kdmesh import Mesh

FILES = Path(__file__).parents[2] / "examples" / "augment"
WORDS = {
    "animal": ["cat", "dog", "hen", "cow", "fox"],
    "plant": ["oak", "elm", "fern", "moss", "ivy"],
    "stone": ["flint", "slate", "chalk", "marl", "jade"],
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def few(folder: Path) -> None:
    """Thirty texts to learn from, and twenty-four others for the test."""
    every = [f"{a} and {b}" for words in WORDS.values() for a in words for b in words if a != b]
    kinds = {text: kind for kind, words in WORDS.items() for text in every if text.split()[0] in words}
    random.Random(0).shuffle(every)
    for name, part in (("train", every[:30]), ("test", every[30:54])):
        rows = [json.dumps({"prompt": kinds[text], "text": text}) for text in part]
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")


def run(name: str, folder: Path) -> Any:
    return Mesh.read(FILES / f"{name}.yaml").run(backend="inline", out=folder / "runs")


def test_a_student_learns_from_written_texts_on_which_teachers_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(tmp_path)
    for file in FILES.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(f"{__name__}.FILES", tmp_path)
    run("augment-writer", tmp_path)
    (written,) = (tmp_path / "runs" / "augment-writer").glob("*/streams/new.jsonl")
    kept = [line for line in lines(written) if line["kept"]]
    held = {line["text"] for line in lines(tmp_path / "test.jsonl")}
    known = {line["text"] for line in lines(tmp_path / "train.jsonl")}
    assert not held & {line["text"] for line in kept} and len({line["text"] for line in kept} - known) > 10
    assert any((line["dropped"] or "").startswith("near ") for line in lines(written))
    shutil.copy(written, tmp_path)
    run("augment-teachers", tmp_path)
    (agents,) = (tmp_path / "runs" / "augment-teachers").glob("*/agents")
    shutil.copytree(agents, tmp_path / "teachers")
    result = run("augment-students", tmp_path)
    assert len(result.summary["consensus"]["agreed"]["sources"]) == 3
    assert result["student"].metrics["test"]["accuracy"] > 0.6  # chance is a third
