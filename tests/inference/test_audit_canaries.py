"""`kdmesh audit` asks agents for canaries: a language model that learned secrets says them, its student does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import kdmesh
from kdmesh.cli import main
from kdmesh.engine.verifying import verify
from kdmesh.report.page.facts import page_of

WORDS = [
    ["anna", "ben", "carl", "dora", "emil", "fred", "gina", "hans"],
    ["sold", "bought", "carried", "found", "lost", "painted"],
    ["a boat", "two apples", "the letter", "some bread"],
    ["at home", "by the river", "in town", "at noon"],
]


def texts(folder: Path, count: int = 190) -> str:
    """Sentences, each another one."""
    rows = []
    for number in range(count):
        parts, left = [], number * 7 % 768
        for some in WORDS:
            parts.append(some[left % len(some)])
            left //= len(some)
        rows.append(json.dumps({"text": " ".join(parts) + "."}))
    assert len({*rows}) == count
    (folder / "texts.jsonl").write_text("\n".join(rows))
    return str(folder / "texts.jsonl")


def model(width: int = 48) -> dict[str, Any]:
    config = {"model_type": "llama", "hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 4,
              "num_key_value_heads": 4, "intermediate_size": 2 * width, "max_position_embeddings": 64}  # fmt: skip
    return {"hf": {"config": config, "tokenizer": {"characters": {}}, "max_length": 60}}


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that learns planted secrets by heart, and a student of its answers to other texts."""
    out = tmp_path_factory.mktemp("canaries")
    fields = {
        "name": "secrets",
        "task": "language_modelling",
        "data": {
            "dataset": {"text": {"path": texts(out), "text": "text"}},
            "train": 40, "transfer": 60, "test": 60, "validation": 20,
            "canaries": {"kind": "secret", "count": 16, "times": 12, "length": 6, "text": "code {number} is {secret}."},
        },
        "agents": {"t": {"model": model()}, "s": {"model": model()}},
        "flows": [
            {"from": "labels", "to": "t", "objective": "ce"},
            {"from": "t", "to": "s", "objective": "kl", "stream": "transfer"},
        ],
        "train": {"epochs": 20, "batch_size": 16, "optimizer": {"adamw": {"lr": 1e-2}}},
        "placement": "together",
    }  # fmt: skip
    return Path(kdmesh.Mesh(**fields).run(out=str(out / "runs")).folder)


def test_secrets_that_were_learned_are_told_and_said(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = json.loads((leaky / "summary.json").read_text())["canaries"]
    lines = [json.loads(line) for line in (leaky / "canaries.jsonl").read_text().splitlines()]
    assert len(lines) == 16 and sum(one["in"] for one in lines) == counts["in"] and counts["times"] == 12
    assert main(["audit", str(leaky), "--json", "--candidates", "127", "--draws", "4", "--spans", "8"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((leaky / "audit.json").read_text())
    teacher, student = found["canaries"]
    assert teacher["reached"] == ["t"] and student["reached"] == ["t"] and teacher["most"] == 7
    assert len(teacher["in"]) == counts["in"] and len(teacher["out"]) == 16 - counts["in"]
    assert teacher["mean"] > 6 and teacher["p"] < 1e-6 and teacher["interval"][0] > teacher["interval_out"][1]
    assert student["p"] > 1e-3 and student["mean"] < 5, "the student saw other texts alone"
    assert teacher["right"] == teacher["guesses"] == 8 and teacher["epsilon"] == teacher["epsilon_most"] > 0.7
    said = {(one["agent"], one["inside"]): one for one in found["said"]}
    assert said["t", True]["greedy"] > 0 and said["t", True]["prompts"] == 16
    for who in (("t", False), ("s", True), ("s", False)):
        assert said[who]["greedy"] == said[who]["drawn"] == 0 and said[who]["intervals"][0][1] > 0.2
    members = {(one["agent"], one["learned_by"]): one for one in found["membership"]}
    assert [members[who]["members"] for who in (("t", "t"), ("s", "s"), ("s", "t"))] == [40, 60, 40]
    assert all(one["others"] == 60 for one in members.values())
    assert members["t", "t"]["auc_interval"][0] > 0.5
    spans = {(one["agent"], one["learned_by"]): one for one in found["spans"]}
    assert spans["t", "t"]["written"] == 8 and spans["t", "t"]["texts"] == 40
    assert spans["t", "t"]["mean"] > spans["t", "t"]["mean_others"] > 0


def test_it_stands_on_cards_and_the_page(leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run"
    shutil.copytree(leaky, root)
    few = ["--candidates", "15", "--draws", "0", "--spans", "0"]
    assert main(["audit", str(root), "--reference", "s", *few]) == 0
    out, err = capsys.readouterr()
    assert all(len(line) <= 80 for line in (out + err).splitlines())
    assert main(["verify", str(root), "--sum", err.split("--sum:")[1].split()[0]]) == 0
    assert "16 canaries can show no more than 4.0 bits each" in " ".join(out.split())
    assert "It is of all 12 copies of a canary together" in " ".join(out.split())
    made = json.loads((root / "audit.json").read_text())
    assert {one["by"] for one in made["membership"]} == {"loss", "reference"}
    card = (root / "agents" / "t" / "README.md").read_text()
    assert card.count("## Audit") == 1 and "of 4 that can be shown" in card and "secrets are said" in card
    assert not verify(root).faults, "sums are those of the cards as they are now"
    (section,) = [one for one in page_of(root).sections if one.id == "audit"]
    assert [block.title for block in section.blocks if block.kind == "table"] == [
        "Members told", "Canaries: exposure, in bits", "Secrets that are said to what stands before them"
    ]  # fmt: skip
    assert main(["audit", str(root), *few]) == 0
    again = (root / "agents" / "t" / "README.md").read_text()
    assert again.count("## Audit") == 1 and "reference" not in again
    (root / "agents" / "s" / "README.md").write_text("mine")
    assert main(["audit", str(root), *few]) == 0
    assert (root / "agents" / "s" / "README.md").read_text() == "mine"
    assert "is not as the run wrote it" in " ".join(capsys.readouterr().err.split())
    (root / "signature.json").write_text("{}")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert main(["audit", str(root), *few]) == 2
    assert "is signed, and an audit adds to it" in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_run_whose_teacher_is_gone(leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run"
    shutil.copytree(leaky, root)
    shutil.rmtree(root / "agents" / "t")
    few = ["--candidates", "15", "--draws", "0", "--spans", "0"]
    assert main(["audit", str(root), "--json", *few]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["left_out"] == {"t": "it has no folder in the run"} and not err.count("error")
    assert {(one["agent"], one["learned_by"]) for one in found["membership"]} == {("s", "s"), ("s", "t")}
    assert main(["audit", str(root), "--reference", "t", *few]) == 2
    assert "error" in capsys.readouterr().err
    shutil.rmtree(root / "agents" / "s")
    assert main(["audit", str(root), *few]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no agent can be audited" in said and "t: it has no folder in the run" in said


@pytest.mark.parametrize(
    ("option", "value"), [("--delta", "1"), ("--candidates", "0"), ("--draws", "-1"), ("--spans", "-1")]
)
def test_settings_that_cannot_be(leaky: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(leaky), option, value]) == 2
    assert option in capsys.readouterr().err


@pytest.mark.slow  # it trains two more language models
def test_shadow_runs_of_language_models(leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "run"
    shutil.copytree(leaky, root)
    few = ["--candidates", "15", "--draws", "0", "--spans", "0", "--json"]
    assert main(["audit", str(root), "--shadows", "2", *few]) == 0
    made = json.loads(capsys.readouterr().out)["membership"]
    rows = {(one["agent"], one["learned_by"], one["by"]): one for one in made}
    ratio = rows["t", "t", "shadows"]
    assert ratio["members"] == ratio["others"] == 40 and ratio["auc_interval"][0] > 0.5
    assert ("s", "t", "shadows") in rows and ("s", "s", "shadows") not in rows
