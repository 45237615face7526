"""A trained agent in forms of other software: the files answer as it does, or are not there."""

from __future__ import annotations

import csv
import json
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import kdmesh
from kdmesh.cli import main
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.files import sha256
from kdmesh.inference.export import exporting, onnx
from kdmesh.inference.export.forms import FORMS
from kdmesh.inference.trained import Trained
from kdmesh.spec.read import parse

USING = Path(__file__).parents[2] / "docs" / "using.md"
BERT = {
    "config": {
        "model_type": "bert",
        "max_position_embeddings": 24,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    },
    "tokenizer": {"bpe": {"vocabulary": 300}},
    "max_length": 24,
}


def table(path: Path, rows: int, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["a", "b", "sum", "way", "words"])
        for a, b in (torch.randn(rows, 2, generator=drawn) * 50).tolist():
            way = "up" if a + b > 0 else "left" if a > 0 else "down"
            out.writerow([a, b, a + 2 * b, way, f"it goes {way} by {abs(a):.1f}"])


def pixels(folder: Path) -> Path:
    """An IDX set of small images."""
    x = torch.randint(0, 256, (64, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = (x.float().mean((1, 2)) > 127).to(torch.uint8)
    folder.mkdir()
    for name, rows in (("train", slice(0, 48)), ("t10k", slice(48, 64))):
        head, labels = (
            struct.pack(">4B3I", 0, 0, 8, 3, len(y[rows]), 8, 8),
            struct.pack(">4BI", 0, 0, 8, 1, len(y[rows])),
        )
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + x[rows].numpy().tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(labels + y[rows].numpy().tobytes())
    return folder


def trained(mesh: dict[str, Any], out: Path, *agents: str) -> dict[str, Any]:
    """Copies of agents' folders in ``out``, and their figures on test."""
    mesh = {"name": "m", "train": {"steps": 3, "batch_size": 16}, **mesh}
    run_once(Request(parse(mesh), out=out / "run", backend="inline"))
    found = next((out / "run").glob("*/*/agents")).parent
    for name in agents:
        shutil.copytree(found / "agents" / name, out / name)
    summary = json.loads((found / "summary.json").read_text(encoding="utf-8"))
    shutil.rmtree(found)
    return {name: summary["agents"][name]["metrics"]["test"] for name in agents}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    table(root / "train.csv", 90, 0)
    table(root / "test.csv", 41, 1)
    pixels(root / "idx")
    return root


def data(files: Path, form: str) -> dict[str, Any]:
    paths = {"path": str(files / "train.csv"), "test_path": str(files / "test.csv")}
    match form:
        case "mlp":
            dataset: dict[str, Any] = {"csv": {**paths, "features": ["b", "a"], "label": "way"}}
            return {"dataset": dataset, "prepare": [{"columns": "numbers", "scale": "standard"}]}
        case "values":
            return {"dataset": {"csv": {**paths, "features": ["b", "a"], "values": ["sum"]}}}
        case "cnn":
            return {"dataset": {"idx": {"folder": str(files / "idx")}}}
    return {"dataset": {"text": {**paths, "text": "words", "label": "way"}}}


MODELS: dict[str, Any] = {
    "mlp": {"mlp": {"hidden": [8]}},
    "values": {"mlp": {"hidden": [8]}},
    "cnn": {"cnn": {"width": 4, "depth": 1}},
    "texts": {"hf": BERT},
}


@pytest.fixture(scope="module")
def agents(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``agents(form)``: an agent's folder, and its figures on test."""
    made: dict[str, tuple[Path, dict[str, Any]]] = {}

    def make(form: str) -> tuple[Path, dict[str, Any]]:
        if form not in made:
            out = tmp_path_factory.mktemp(form)
            task = {"task": "regression"} if form == "values" else {}
            mesh = {**task, "data": data(files, form), "agents": {"s": {"model": MODELS[form]}}}
            made[form] = out / "s", trained(mesh, out, "s")["s"]
        return made[form]

    return make


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    found = capsys.readouterr().err
    assert "Traceback" not in found and "instead" in found
    return found


@pytest.mark.parametrize("to", [name for name, form in FORMS.items() if not form.rounds])
@pytest.mark.parametrize("form", ["mlp", "values", "texts"])
def test_the_file_has_the_run_s_own_figures(form: str, to: str, agents: Any, files: Path, capsys: Any) -> None:
    folder, figures = agents(form)
    said = told(capsys, "export", folder, "--to", to, "--data", files / "test.csv", "--quiet")
    assert "largest difference" in said and max(map(len, said.splitlines()[1:])) <= 80
    record = json.loads((folder / to / "export.json").read_text(encoding="utf-8"))
    assert record["compared"]["largest_difference"] <= 1e-5 and record["compared"]["batches"] == [1, 2, 7]
    assert len(record["compared"]["lengths"]) == (2 if form == "texts" else 0)
    assert record["scored"]["agent"] == figures and record["scored"]["samples"] == 41
    assert record["scored"]["exported"] == pytest.approx(figures, abs=1e-5)
    assert record["made_from"]["model.safetensors"] == sha256(folder / "model.safetensors")
    assert record["files"].keys() | {"export.json"} == {one.name for one in (folder / to).iterdir()}
    assert all(sha256(folder / to / name) == digest for name, digest in record["files"].items())
    assert record["outputs"][0]["name"] == ("values" if form == "values" else "logits")
    assert record["outputs"][0]["names"] == (["sum"] if form == "values" else ["down", "left", "up"])
    assert ("prepare.json" in record["files"]) == (form == "mlp") == ("prepared samples" in said)


def test_names_of_many_classes_fit_in_the_lines(agents: Any, tmp_path: Path, capsys: Any) -> None:
    folder = shutil.copytree(agents("mlp")[0], tmp_path / "agent")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["labels"] == ["down", "left", "up"]
    config["labels"] = [f"a class of the {kind} kind, with a long name" for kind in ("first", "second", "other")]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    said = told(capsys, "export", folder, "--to", "torch_export", "--out", tmp_path / "made", "--quiet")
    lines = said.splitlines()[1:]
    assert max(map(len, lines)) <= 80 and "of the other kind" in " ".join(map(str.strip, lines))


def test_images_of_any_number_by_onnxruntime(agents: Any, files: Path, capsys: Any) -> None:
    folder, _ = agents("cnn")
    said = told(capsys, "export", folder, "--to", "onnx")
    assert "divided by 255" in said
    session = onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("x", ["batch", 1, 8, 8], "tensor(float)")
    assert (answer.name, answer.shape) == ("logits", ["batch", 2])
    model = kdmesh.load(folder)
    for rows in (1, 2, 7):
        x = torch.randint(0, 256, (rows, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(rows))
        (found,) = session.run(None, {"x": x.float().div(255).numpy()})
        assert np.allclose(found, model.predict(x).scores.numpy(), atol=1e-5)


def test_an_exported_agent_is_a_frozen_teacher(agents: Any, files: Path, tmp_path: Path, capsys: Any) -> None:
    folder, figures = agents("mlp")
    told(capsys, "export", folder, "--to", "onnx", "--out", tmp_path / "out")
    mesh = {
        "data": data(files, "mlp"),
        "agents": {
            "t": {"model": {"onnx": {"path": str(tmp_path / "out" / "model.onnx")}}, "update": "frozen"},
            "s": {"model": {"mlp": {"hidden": [4]}}},
        },
        "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
    }
    assert trained(mesh, tmp_path, "t")["t"] == pytest.approx(figures, abs=1e-5)
    with (files / "test.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    own, theirs = (kdmesh.load(one).predict(rows).scores for one in (folder, tmp_path / "t"))
    assert float((own - theirs).abs().max()) <= 1e-5
    assert "a file of another library (onnx)" in refused(capsys, "export", tmp_path / "t", "--to", "torch_export")


def test_the_page_s_program_answers_as_the_agent_does(
    agents: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder, _ = agents("texts")
    if not (folder / "onnx").exists():
        told(capsys, "export", folder, "--to", "onnx")
    blocks = re.findall(r"```python\n(.*?)```", USING.read_text(encoding="utf-8"), re.DOTALL)
    (program,) = [block for block in blocks if "onnxruntime" in block]
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(compile(program, str(USING), "exec"), found)
    asked = kdmesh.load(folder).predict(found["texts"])
    assert np.allclose(found["logits"], asked.scores.numpy(), atol=1e-5) and found["answers"] == asked.answers


class Branches(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Odd(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.linalg.svd(x)[1].sum()


class Fixed(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).reshape(3, 3)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Branches, "torch.export cannot trace s: its forward decides by the values of its inputs"),
        (Odd, "ONNX cannot hold s: ONNX has no operator for aten._linalg_svd"),
        (Fixed, "torch.export cannot trace s: its forward fixes the number of samples"),
    ],
)
def test_what_cannot_be_exported_is_said(module: Any, said: str, agents: Any, tmp_path: Path) -> None:
    agent = replace(Trained.read(agents("mlp")[0]), module=module(2, 3))
    with pytest.raises(MeshError, match=re.escape(said)):
        exporting.export(agent, FORMS["onnx"], tmp_path / "out")
    assert not list(tmp_path.iterdir())


class Worse(onnx.Onnx):
    """As if a translation lost precision."""

    by = 0.03

    def open(self, path: Path, graph: Any) -> Any:
        answers = super().open(path, graph)
        return lambda inputs: answers(inputs) + self.by


def test_a_file_that_differs_is_not_left(agents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, out = Trained.read(agents("mlp")[0]), tmp_path / "out"
    exporting.export(agent, FORMS["onnx"], out)
    before = {one.name: one.read_bytes() for one in out.iterdir()}
    with pytest.raises(MeshError, match=r"ONNX is 3\.0e-02 from s \(batch of \d\), more than 0\.0001") as found:
        exporting.export(agent, Worse(), out)
    assert "--tolerance 0.04" in found.value.instead
    assert {one.name: one.read_bytes() for one in out.iterdir()} == before and list(tmp_path.iterdir()) == [out]
    assert exporting.export(agent, Worse(), out, 0.04).record["compared"]["tolerance"] == 0.04
    for by in ("nan", "inf"):
        monkeypatch.setattr(Worse, "by", float(by))
        with pytest.raises(MeshError, match=f"ONNX is {by} from s") as found:
            exporting.export(agent, Worse(), out, 1e9)
        assert found.value.instead == "another form"
    monkeypatch.setattr(onnx, "LARGEST", 10)  # weights that one file does not hold
    found_ = exporting.export(agent, FORMS["onnx"], out)
    assert "model.onnx.data" in found_.record["files"] and found_.record["compared"]["largest_difference"] <= 1e-5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "gguf2"], "--to: found 'gguf2'"),
        (["--to", "onnx", "--out", "{mine}"], "holds diary.txt, which no export wrote"),
        (["--to", "onnx", "--out", "{mine}/diary.txt"], "is there, and no folder"),
        (["--to", "onnx", "--out", "{mine}/none/out"], "no folder"),
        (["--to", "onnx", "--label", "way"], "it says how --data is read, and there is none"),
        (["--to", "onnx", "--out", "{mine}/out", "--data", "{mine}/unlabelled.csv"], "no column 'way'"),
    ],
)
def test_mistakes_are_told_and_nothing_is_lost(
    words: list[str], said: str, agents: Any, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "diary.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "unlabelled.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert said in refused(capsys, "export", agents("mlp")[0], *(word.format(mine=tmp_path) for word in words))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["diary.txt", "unlabelled.csv"]


def test_a_missing_library_is_named(agents: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(onnx.Onnx, "libraries", ("onnx", "no_such_library"))
    said = refused(capsys, "export", agents("mlp")[0], "--to", "onnx")
    assert "ONNX needs no_such_library" in said and "kdmesh[export]" in said
