"""Texts of an earlier run as data: those that were kept, with what is known of each; files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdmesh.builtin.datasets.written import written
from kdmesh.errors import MeshError
from kdmesh.streams.texts import Texts


def line(at: int, **more: Any) -> dict[str, Any]:
    about = {
        "prompt": f"{at}+1=",
        "text": str(at + 1),
        "kept": True,
        "dropped": None,
        "tokens": 1,
        "sample": at,
        "draw": 0,
    }
    return {**about, "producer": "t", "step": 0, "updates": 3, "sampling": {}, "filters": [], "time": "now", **more}


def file(folder: Path, *lines: dict[str, Any]) -> str:
    path = folder / "made.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    return str(path)


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    path = file(tmp_path, line(0), line(1, kept=False, dropped="length"), line(2, text="", tokens=0), line(3, draw=1))
    table = written(path)
    assert isinstance(table.x, Texts)
    assert [(one.prompt, one.text, one.at) for one in table.x] == [
        ("0+1=", "1", "made.jsonl, line 1"),
        ("3+1=", "4", "made.jsonl, line 4"),
    ]
    assert table.columns["draw"] == ["0", "1"] and table.columns["producer"] == ["t", "t"]
    assert [one.prompt for one in written(path, dropped=True).x] == ["0+1=", "1+1=", "3+1="]
    assert written(path, dropped=True).columns["dropped"][1] == "length"


def test_a_test_file_is_the_official_split(tmp_path: Path) -> None:
    other = tmp_path / "held.jsonl"
    other.write_text(json.dumps({"prompt": "8+1=", "text": "9"}) + "\n")
    table = written(file(tmp_path, line(0), line(1)), str(other))
    assert table.official["train"].tolist() == [0, 1] and table.official["test"].tolist() == [2]
    assert not table.notes and table.columns["sample"] == ["0", "1", ""]


def test_a_test_file_has_prompts_and_texts_by_these_names(tmp_path: Path) -> None:
    other = tmp_path / "held.jsonl"
    other.write_text(json.dumps({"question": "8+1=", "answer": "9"}) + "\n")
    with pytest.raises(MeshError, match=r"held\.jsonl: no column 'prompt'") as caught:
        written(file(tmp_path, line(0)), str(other))
    assert (caught.value.where, caught.value.instead) == (
        "data.dataset.written.test_path",
        "columns: answer, question",
    )


def test_several_texts_of_a_prompt_are_told_of(tmp_path: Path) -> None:
    assert "may divide them" in written(file(tmp_path, line(0), line(0, draw=1))).notes[0]


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([{"prompt": "a", "text": "b"}], "its lines have no 'kept'"),
        ([line(0, kept=False), line(1, tokens=0)], "none of its 2 texts is kept"),
        ([line(0, text=3)], "it is no text"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, lines: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(MeshError, match=what) as caught:
        written(file(tmp_path, *lines))
    assert caught.value.where == "data.dataset.written.path" and caught.value.instead


def test_texts_may_be_classified_by_what_they_were_asked_with(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": "plant", "text": "an elm"}) + "\n")
    about = {"prompt": "stone", "text": "a flint"}
    path = file(tmp_path, line(0, **about), line(1, prompt="plant", text="an oak"), line(2, kept=False, prompt="?"))
    table = written(path, str(test), label="prompt")
    assert table.y is not None and table.y.tolist() == [1, 0, 0] and table.labels == ["plant", "stone"]
    assert [(one.text, one.prompt) for one in table.x] == [("a flint", None), ("an oak", None), ("an elm", None)]
    with pytest.raises(MeshError, match="no column 'kind'"):
        written(path, label="kind")
