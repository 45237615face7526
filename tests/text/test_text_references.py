"""Frozen teachers stay where they are: a run's folder refers to their files by path and sha256."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_texts import save
from text_meshes import WORDS, bert

import kdmesh
from kdmesh.errors import MeshError


def numbers(root: Path, **more: Any) -> kdmesh.api.Result:
    """Two frozen teachers of one file each, and a student."""
    mesh = kdmesh.Mesh(data={"dataset": "digits", "train": 64}, train={"steps": 2, "batch_size": 16})
    for number in range(2):
        file = root / f"t{number}.safetensors"
        made = kdmesh.Mesh(data={"dataset": "digits", "train": 64}, train={"steps": 1, "batch_size": 16}, seed=number)
        made.agent("t", {"mlp": {"hidden": [8]}})
        made.flow("labels", "t", objective="ce")
        if not file.exists():
            save_file(made.run(backend="inline")["t"].module.state_dict(), file)
        mesh.agent(f"t{number}", {"mlp": {"hidden": [8]}}, weights=str(file), update="frozen", **more)
    mesh.agent("s", {"mlp": {"hidden": [4]}})
    mesh.connect("ensemble", teachers=["t0", "t1"], student="s")
    return mesh.run(backend="inline", out=root / "runs", controls=True)


def test_a_weights_file_is_referred_to_and_controls_find_it(tmp_path: Path) -> None:
    result = numbers(tmp_path)
    folder = result.folder / "agents" / "t0"  # type: ignore[operator]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "reference.json"]
    (told,) = json.loads((folder / "reference.json").read_text())["files"]
    assert not Path(told["path"]).is_absolute() and len(told["sha256"]) == 64
    export = result.summary["agents"]["t0"]["export"]
    assert (export["by"], export["samples"], export["difference"], export["problem"]) == ("kdmesh.load", 4, 0.0, "")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(kdmesh.load(folder)(x), result["t0"].module(x))
    assert result.summary["controls"]["s"]["best_teacher"]["teacher"] in ("t0", "t1")
    shutil.copytree(tmp_path, tmp_path.with_name("elsewhere"))  # both move together
    moved = tmp_path.with_name("elsewhere") / folder.relative_to(tmp_path)
    assert torch.equal(kdmesh.load(moved)(x), result["t0"].module(x))


def test_a_file_that_has_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    folder = numbers(tmp_path).folder / "agents" / "t0"  # type: ignore[operator]
    file = tmp_path / "t0.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + b"abcd")
    with pytest.raises(MeshError, match=r"t0.safetensors, which has changed"):
        kdmesh.load(folder)
    file.unlink()
    with pytest.raises(MeshError, match=r"t0.safetensors, which is not there") as error:
        kdmesh.load(folder)
    assert error.value.where == "reference.json" and "saved: copy" in error.value.instead


def test_a_copy_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = numbers(tmp_path, saved="copy").folder / "agents" / "t0"  # type: ignore[operator]
    assert (folder / "model.safetensors").is_file() and not (folder / "reference.json").exists()


@pytest.mark.parametrize("how", [{}, {"layers": [1]}, {"dtype": "bfloat16"}])
def test_a_folder_of_transformers_is_referred_to(texts: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    save(tmp_path / "base", labels=[word.upper() for word in sorted(WORDS, reverse=True)])
    mesh = kdmesh.Mesh(
        data={"dataset": {"text": {"path": str(texts), "label": "label"}}}, train={"steps": 1, "batch_size": 8}
    )
    named = {word.upper(): word for word in WORDS}
    teacher = {"path": str(tmp_path / "base"), "max_length": 48, "label_map": named, **how}
    mesh.agent("t", {"hf": teacher}, update="frozen")
    mesh.agent("copied", {"hf": teacher}, update="frozen", saved="copy")
    mesh.agent("s", bert(8))
    mesh.flow("t", "s", objective="kl")
    result = mesh.run(backend="inline", out=tmp_path / "runs")
    folder = result.folder / "agents" / "t"  # type: ignore[operator]
    assert not list(folder.glob("*.safetensors")) and (folder / "tokenizer.json").is_file()
    assert [Path(one["path"]).name for one in json.loads((folder / "reference.json").read_text())["files"]] == [
        "config.json",
        "model.safetensors",
    ]
    again, copied = kdmesh.load(folder), kdmesh.load(folder.parent / "copied")
    with torch.no_grad():
        assert torch.equal(again(["the red bird"]), copied(["the red bird"]))
    export = result.summary["agents"]["t"]["export"]
    assert (export["by"], export["difference"], export["problem"]) == ("kdmesh.load", 0.0, "")
    told = (folder / "kdmesh.json").read_text() + (folder / "README.md").read_text()
    assert str(tmp_path) not in told and "kdmesh.load" in told
    (tmp_path / "base" / "config.json").write_text("{}")
    with pytest.raises(MeshError, match=r"config.json, which has changed"):
        kdmesh.load(folder)


def test_who_starts_from_whole_files_has_its_controls(tmp_path: Path) -> None:
    """No weight of them is drawn, so that a control gives them no seed: one without effect is refused."""
    for name in ("t0", "t1", "s"):
        save(tmp_path / name, labels=sorted(WORDS))
    lines = [{"text": word, "label": label} for label, words in WORDS.items() for word in words * 3]
    (tmp_path / "words.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    agents: dict[str, Any] = {
        name: {"model": {"hf": {"path": str(tmp_path / name), "max_length": 16}}} for name in ("t0", "t1", "s")
    }
    mesh = kdmesh.Mesh(
        data={"dataset": {"text": {"path": str(tmp_path / "words.jsonl"), "label": "label"}}},
        agents={name: one if name == "s" else {**one, "update": "frozen"} for name, one in agents.items()},
        connect=[{"ensemble": {"teachers": ["t0", "t1"], "student": "s"}}],
        train={"steps": 2, "batch_size": 8},
    )
    result = mesh.run(backend="inline", out=tmp_path / "runs", controls=True)
    assert {*result.summary["controls"]["s"]} == {"alone", "best_teacher"}
    for figures in result.summary["controls"]["s"].values():
        assert 0 <= figures["test"]["accuracy"] <= 1 and "skipped" not in figures
