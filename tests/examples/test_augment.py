"""A few labelled texts become more in one run: a language model writes them, encoders vote on them, one learns them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from kdmesh import Mesh

FILE = Path(__file__).parents[2] / "examples" / "augment" / "augment.yaml"
WORDS = {
    "animal": ["cat", "dog", "hen", "cow", "fox"],
    "plant": ["oak", "elm", "fern", "moss", "ivy"],
    "stone": ["flint", "slate", "chalk", "marl", "jade"],
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def few(folder: Path) -> None:
    """Thirty-six texts to learn from, and twenty-four others for the test."""
    every = [f"{a} and {b}" for words in WORDS.values() for a in words for b in words if a != b]
    kinds = {text: kind for kind, words in WORDS.items() for text in every if text.split()[0] in words}
    random.Random(0).shuffle(every)
    for name, part in (("train", every[:36]), ("test", every[36:])):
        rows = [json.dumps({"kind": kinds[text], "text": text}) for text in part]
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")


def test_an_encoder_learns_from_written_texts_on_whose_class_others_agree(tmp_path: Path) -> None:
    few(tmp_path)
    shutil.copy(FILE, tmp_path)
    result = Mesh.read(tmp_path / FILE.name).run(backend="inline", out=tmp_path / "runs")
    assert result.folder is not None
    every = lines(result.folder / "streams" / "new.jsonl")
    kept = [line for line in every if line["kept"]]
    known, held = ({line["text"] for line in lines(tmp_path / f"{name}.jsonl")} for name in ("train", "test"))
    assert not held & {line["text"] for line in kept} and len({line["text"] for line in kept} - known) > 10
    assert {"confirmed", "dedup"} <= {line["dropped"] for line in every}
    right = [line for line in kept if any(word in line["text"] for word in WORDS[line["label"]])]
    assert len(right) > len(kept) / 2
    assert result["student"].metrics["test"]["accuracy"] > 0.6  # chance is a third; it saw none of the given texts
