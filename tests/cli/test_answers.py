"""Answers to mistakes that newcomers make: the place, what was found, and what to write in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kdmesh
from kdmesh.cli import main
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, nearest
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import dump


def told(folder: Path, capsys: pytest.CaptureFixture[str], mesh: dict[str, Any], command: str = "plan") -> str:
    """What a command says of a mesh that is wrong."""
    file = folder / "m.yaml"
    file.write_text(dump({"data": "digits", **mesh}), encoding="utf-8")
    assert main([command, str(file)]) == 2
    return capsys.readouterr().err


def taught(teacher: dict[str, Any] | None = None, student: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    agents = {"t": {"model": "mlp", **(teacher or {})}, "s": {"model": "mlp", **(student or {})}}
    return {"agents": agents, "connect": [{"ensemble": {"teachers": "t", "students": "s", **more}}]}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t.pth", ["a pickle can run code", 'torch.load("t.pth", weights_only=True)', '"t.safetensors")']),
        ("pytorch_model.bin", ["a pickle can run code", "save_file", '"pytorch_model.safetensors")']),
        ("no.ending", ["a pickle can run code", 'torch.load("no.ending"']),
        ("old.pt", ["a pickle can run code"]),  # not a zip file
        ("folder", ["folder is a folder", "a safetensors file"]),
        ("none.pth", ["there is no file", "none.pth"]),
        ("broken.safetensors", ["cannot read weights", "a safetensors file"]),
    ],
)
def test_weights_that_are_no_safetensors_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "broken.safetensors":
        path.write_bytes(b"\x10")
    elif not name.startswith("none"):
        state = nn.Linear(2, 2).state_dict()
        torch.save(state, path, _use_new_zipfile_serialization=name != "old.pt")
    said = told(tmp_path, capsys, taught({"weights": str(path), "update": "frozen"}), "check")
    assert "agents.t.weights" in said and all(word in said for word in words), said


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["0", "zwei", "1"], ["line 3: 'zwei' is not a finite number", "a class name in most"]),
        (["0", "1.5", "1"], ["label 1.5 is no whole number", "labels 0"]),
    ],
)
def test_a_bad_cell_of_labels_is_answered_about_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: list[str], words: list[str]
) -> None:
    rows = "".join(f"{number},{number * 2},{label}\n" for number, label in enumerate(labels * 4))
    (tmp_path / "c.csv").write_text(f"a,b,label\n{rows}", encoding="utf-8")
    data = {"dataset": {"csv": {"path": str(tmp_path / "c.csv")}}}
    said = told(tmp_path, capsys, {**taught(), "data": data}, "check")
    assert all(word in said for word in words), said
    assert "did you mean ''" not in said and "features" not in said


@pytest.mark.parametrize(
    ("mesh", "place"),
    [
        (taught(labels_stream="trian"), "connect.0.ensemble.labels_stream"),
        (taught(stream="trian"), "connect.0.ensemble.stream"),
        ({"agents": {"a": {"model": "mlp"}, "b": {"model": "mlp"}},
          "connect": [{"mutual": {"peers": ["a", "b"], "labels_stream": "trian"}}]}, "connect.0.mutual.labels_stream"),
    ],
)  # fmt: skip
def test_a_misnamed_stream_is_reported_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mesh: dict[str, Any], place: str
) -> None:
    said = told(tmp_path, capsys, mesh)
    assert f"{place}: unknown stream 'trian'" in said and "did you mean 'train'?" in said


PARTY: dict[str, Any] = {"agents": {"d": {"count": 3, "model": "mlp"}, "s": {"model": "mlp"}}}


@pytest.mark.parametrize("name", ["d", "D", "d[7]", "e[*]"])
@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("connect.0.ensemble.teachers", lambda name: {"connect": [{"ensemble": {"teachers": name, "students": "s"}}]}),
        ("flows.0.to", lambda name: {"flows": [{"from": "labels", "to": [name, "s"], "objective": "ce"}]}),
        ("placement.h", lambda name: {"placement": {"h": [name, "s"]}}),
    ],
)
def test_an_unknown_party_is_told_how_all_of_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, place: str, part: Any
) -> None:
    said = told(tmp_path, capsys, {**PARTY, **part(name)})
    assert f"{place}: unknown agent" in said and "did you mean 'd[*]'?" in said, said
    (tmp_path / "m.yaml").write_text(dump({"data": "digits", **PARTY, **part("d[*]")}), encoding="utf-8")
    assert main(["plan", str(tmp_path / "m.yaml")]) == 0, "what is advised is understood"


def test_where_one_agent_is_asked_for_all_of_a_party_are_not_advised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = {"agents": {**PARTY["agents"], "s": {"weights_of": "d"}}}
    said = told(tmp_path, capsys, mesh)
    assert "agents.s.weights_of" in said and "d[0]" in said and "[*]" not in said
    assert nearest("stdent", ["student", "d[0]"], "agents", several=True).startswith("did you mean 'student'?")


@pytest.mark.parametrize("saved", ["copy", "reference"])
@pytest.mark.parametrize("student", [{}, {"update": {"ema": {"of": "t", "decay": 0.9}}}])
def test_saved_is_for_frozen_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], saved: str, student: dict[str, Any]
) -> None:
    mesh = taught(student={**student, "saved": saved}) | ({"connect": []} if student else {})
    said = told(tmp_path, capsys, mesh)
    assert "agents.s.saved" in said and "update: frozen" in said


@pytest.mark.parametrize("seeds", [0, -1, 10**9, 2.5, True])
def test_the_number_of_seeds_is_bounded(seeds: Any) -> None:
    with pytest.raises(MeshError, match="a whole number from 1 to"):
        Request(parse({"data": "digits", **taught()}), "inline", seeds=seeds)


def test_too_many_seeds_are_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "ensemble", "--seeds", str(10**9), "--out", str(tmp_path / "runs")]) == 2
    assert "seeds: 1000000000 seeds" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_module_in_place_of_a_name_is_not_written_out() -> None:
    mesh = kdmesh.Mesh(data="digits")
    mesh.agent("s", "mlp")
    mesh.connect("ensemble", teachers=nn.Sequential(nn.Linear(3, 3)), students="s")
    with pytest.raises(MeshError, match=r"found an object, Sequential\n.*mesh\.agent\(NAME, module\)") as caught:
        mesh.plan()
    assert "Linear" not in str(caught.value)
