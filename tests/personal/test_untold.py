"""Secrets of the environment and personal data stand in nothing that a command prints, or writes."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

from kdmesh.cli import main
from kdmesh.errors import quoted, untold

NAME = "Zebulon Quodlibet"
CELL = "zebulon.quodlibet@mail.example.org"
SECRETS = {"KDMESH_TEST_TOKEN": "tok-5f0c9d2e71", "HF_TOKEN": "hf_5f0c9d2e71", "OPENAI_API_KEY": "sk-5f0c9d2e71",
           "KDMESH_PERSONAL_NOTE": "note-5f0c9d2e71"}  # fmt: skip
PERSONAL: dict[str, Any] = {"action": "redact", "find": ["email", {"words": {"words": [NAME], "kind": "PERSON"}}]}
TINY = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16}  # fmt: skip


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDMESH_PERSONAL_KEY", raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def texts(root: Path, **odd: Any) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"text": f"{'yes' if number % 2 else 'no'} {number} by {NAME}, {CELL}", "label": "ab"[number % 2],
         "from": f"{number} {CELL}"}
        for number in range(40)
    ]  # fmt: skip
    rows[7] |= odd
    (root / "letters.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = {"hf": {"config": TINY, "tokenizer": {"characters": {}}}}
    return {
        "name": "letters",
        "data": {"dataset": {"text": {"path": str(root / "letters.jsonl"), "label": "label"}}, "personal": PERSONAL},
        "agents": {"t": {"model": model}, "s": {"model": model}},
        "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
        "train": {"epochs": 1, "batch_size": 16},
        "text": {"max_length": 48},
    }


def table(root: Path, cell: str = "0.5", **dataset: Any) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    rows = [[f"{float(one):.4f}" for one in row] for row in torch.randn(40, 2, generator=draw)]
    rows[7][1] = cell
    lines = ["a,b,town,who,label"]
    lines += [f"{one},{two},{'xy'[at % 2]},{NAME},{'no' if at % 3 else 'yes'}" for at, (one, two) in enumerate(rows)]
    (root / "points.csv").write_text("\n".join(lines), encoding="utf-8")
    model = {"mlp": {"hidden": [4]}}
    return {
        "name": "points",
        "data": {"dataset": {"csv": {"path": str(root / "points.csv"), "label": "label", **dataset}},
                 "personal": PERSONAL},
        "agents": {"t": {"model": model}, "s": {"model": model}},
        "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
        "train": {"epochs": 1, "batch_size": 16},
    }  # fmt: skip


def told(fields: dict[str, Any], root: Path, capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str]:
    """A command's exit code, and all that it printed and wrote but for the data themselves."""
    (root / "mesh.json").write_text(json.dumps(fields), encoding="utf-8")
    code = main([command[0], str(root / "mesh.json"), *command[1:]])
    shown = capsys.readouterr()
    files = [path.read_bytes().decode("latin-1") for path in (root / "runs").rglob("*") if path.is_file()]
    return code, "\n".join([shown.out, shown.err, *files])


def refuse_personal(said: str) -> None:
    given = [NAME, CELL, NAME.split()[0], *SECRETS.values()]
    plain = said.replace(json.dumps(PERSONAL["find"][1]), "")
    assert [one for one in given if one in plain] == []


def run(root: Path) -> tuple[str, ...]:
    return "run", "--out", str(root / "runs"), "--backend", "inline", "--store", str(root / "runs/store")


@pytest.mark.parametrize("made", [texts, table])
def test_a_run_tells_of_neither(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = made(tmp_path)
    fields["data"]["personal"] = {**PERSONAL, "find": ["email", {"words": {"path": str(names(tmp_path)),
                                                                          "kind": "PERSON"}}]}  # fmt: skip
    for command in (("check",), ("plan",), run(tmp_path)):
        code, said = told(fields, tmp_path, capsys, *command)
        assert code == 0, said[-2000:]
        refuse_personal(said)
    (folder,) = (tmp_path / "runs" / fields["name"]).iterdir()
    for command in (["report", str(folder)], ["runs", str(tmp_path / "runs")], ["watch", "--once", str(folder)]):
        main(command)
        refuse_personal("".join(capsys.readouterr()))
    refuse_personal((folder / "report.html").read_text(encoding="utf-8"))


def names(root: Path) -> Path:
    path = root / "names.txt"
    path.write_text(f"{NAME}\n", encoding="utf-8")
    return path


ODD: dict[str, tuple[Any, dict[str, Any]]] = {
    "no number": (table, {"cell": CELL}),
    "no text": (texts, {"text": [NAME, CELL]}),
    "no class": (texts, {"label": {"who": NAME}}),
    "half a character": (texts, {"text": f"{NAME} \ud800"}),
    "no category": (table, {"cell": CELL, "features": ["a", "b", "town"]}),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_wrong_in_a_cell_is_said_without_the_cell(
    odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, how = ODD[odd]
    fields = made(tmp_path, **how)
    fields["data"]["personal"] = {"action": "redact", "find": ["email", {"words": {"path": str(names(tmp_path)),
                                                                                  "kind": "PERSON"}}]}  # fmt: skip
    if odd == "no category":
        fields["data"]["prepare"] = [{"columns": ["b"], "scale": "standard"}]
    for command in (("check",), run(tmp_path)):
        code, said = told(fields, tmp_path, capsys, *command)
        refuse_personal(said)
        assert code == 2 and any(one in said for one in ("letters.jsonl", "points.csv", "in its name")), said


def test_without_personal_data_a_cell_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = table(tmp_path, CELL, features=["a", "b"])
    del fields["data"]["personal"]
    assert CELL in told(fields, tmp_path, capsys, "check")[1]
    assert quoted("abc") == "'abc'"
    with untold():
        assert quoted("abc") == "what is there (3 characters)"


def test_a_password_in_the_environment_stands_in_no_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlalchemy")
    sqlite3.connect(tmp_path / "a.db").close()
    monkeypatch.setenv("TABLE_URL", "postgresql+nobody://ann:pw-5f0c9d2e71@127.0.0.1:1/a")
    fields = table(tmp_path)
    fields["data"] = {"dataset": {"sql": {"url_env": "TABLE_URL", "query": "select 1", "label": "label"}}}
    for command in (("check",), run(tmp_path)):
        code, said = told(fields, tmp_path, capsys, *command)
        assert code == 2 and "pw-5f0c9d2e71" not in said and os.environ["TABLE_URL"] not in said


@pytest.mark.parametrize("lazy", [False, True])
def test_the_name_of_a_file_is_personal_too(tmp_path: Path, capsys: pytest.CaptureFixture[str], lazy: bool) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "faces"
    for number in range(24):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image.new("L", (4, 4), number).save(folder / "ab"[number % 2] / f"{NAME} {number}.png")
    model = {"mlp": {"hidden": [4]}}
    fields = {
        "name": "faces",
        "data": {"dataset": {"images": {"path": str(folder), "lazy": lazy}},
                 "personal": {"action": "redact", "find": [{"words": {"path": str(names(tmp_path)),
                                                                      "kind": "PERSON"}}]}},
        "agents": {"t": {"model": model}, "s": {"model": model}},
        "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
        "train": {"epochs": 1, "batch_size": 8},
    }  # fmt: skip
    code, said = told(fields, tmp_path, capsys, *run(tmp_path))
    assert code == 0 and "24 samples (PERSON 24)" in " ".join(said.split()), said[:2000]
    refuse_personal(said)
    next((folder / "a").iterdir()).write_bytes(b"no image")
    code, said = told(fields, tmp_path, capsys, "check")
    assert code == 2 and "what is there" in said, said[:600]
    refuse_personal(said)
