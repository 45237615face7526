# ruff: noqa: F811  fixtures of the tests beside
"""Files of 8 bits, of agents that learned to be rounded and of others: what they answer is what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from test_export import BERT, agents, data, files, refused, told, trained  # noqa: F401
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

import kdmesh
from kdmesh.engine.check import check
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.compression.int8 import Int8Linear, exact, quantize, rounded
from kdmesh.inference.export.graph import Port
from kdmesh.inference.export.int8 import Int8, _Rounding
from kdmesh.inference.trained import Trained
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

STEP = 0.05
"""How far a file may be from the agent that rounds as it does: where a product's last bit differs, a value that stands
between two steps may be rounded to the other one, and what follows moves by a 127th of a row's largest value."""


def test_values_are_steps_of_a_127th_of_their_row_s_largest_and_gradients_pass() -> None:
    value = torch.tensor([[0.4, -127.0, 12.6], [0.0, 0.0, 0.0], [1.0, 0.5, -0.25]], requires_grad=True)
    found = rounded(value)
    assert torch.equal(found[:2], torch.tensor([[0.0, -127.0, 13.0], [0.0, 0.0, 0.0]]))
    assert torch.allclose(found[2], torch.tensor([127.0, 64.0, -32.0]) / 127)
    (found * torch.arange(9.0).reshape(3, 3)).sum().backward()
    assert value.grad is not None and torch.equal(value.grad, torch.arange(9.0).reshape(3, 3))


def test_a_module_rounds_keeps_its_weights_and_can_be_asked_whole() -> None:
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(4, 5)
    whole, state = module(x), {name: one.clone() for name, one in module.state_dict().items()}
    quantize(module)
    first = module(x)
    assert isinstance(module[0], Int8Linear) and 0 < (first - whole).abs().max() < 0.1
    assert state.keys() == module.state_dict().keys()
    assert torch.equal(module(x[1:2]), first[1:2].clone()) or torch.allclose(module(x[1:2]), first[1:2], atol=1e-6)
    with exact(module):
        assert torch.equal(module(x), whole)
    assert torch.equal(module(x), first)


class Embedded(nn.Module):
    """A matrix that is read by its rows and multiplied by, and rows that go into a linear layer as they come."""

    inputs, output, lengths = (Port("x", "int64", ("batch", "length")),), Port("y", "float32", ("batch", 8)), (5,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.linear = nn.Embedding(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        found = self.rows(x)
        return (self.linear(found) + found) @ self.rows.weight

    def drawn(self, rows: int, length: int) -> Tensor:
        return torch.arange(rows * length).reshape(rows, length) % 8

    def given(self, x: Tensor) -> tuple[Tensor]:
        return (x,)


def test_rows_that_go_straight_into_a_product_of_their_own_matrix(tmp_path: Path) -> None:
    graph: Any = Embedded().eval()
    Int8().write(graph, tmp_path / "model.onnx", "it")
    x = graph.drawn(2, 4)
    with torch.no_grad():
        matrix, linear = graph.rows.weight, graph.linear
        found = rounded(matrix)[x]
        wanted = nn.functional.linear(rounded(found), rounded(linear.weight), linear.bias) + found
        wanted = rounded(wanted) @ rounded(matrix, 0)
    assert (Int8().open(tmp_path / "model.onnx", graph)((x,)) - wanted).abs().max() < 1e-4 < wanted.abs().max()


def test_a_product_that_is_scaled_stays_as_it_is() -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    held = [numpy_helper.from_array(weights, "plain"), numpy_helper.from_array(weights, "scaled")]
    scaled = {"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}
    nodes = [helper.make_node("Gemm", ["x", "plain"], ["y0"], alpha=1.0, beta=1.0)]
    nodes += [helper.make_node("Gemm", ["x", "scaled", "c"], [f"y{at + 1}"], **one) for at, one in enumerate(scaled)]
    graph = helper.make_graph(nodes, "it", [], [], initializer=held)
    _Rounding(graph).run("it")
    assert [node.output[0] for node in graph.node if node.op_type == "Gemm"] == ["y1", "y2", "y3"]
    assert {one.name for one in graph.initializer} >= {"scaled", "plain.int8.0"}


@pytest.fixture(scope="module")
def students(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``students(form)``: the folder of an agent that learned to be rounded, and its figures on test."""
    made: dict[str, tuple[Path, dict[str, Any]]] = {}
    models: dict[str, Any] = {"mlp": {"mlp": {"hidden": [8]}}, "texts": {"hf": BERT}}

    def make(form: str) -> tuple[Path, dict[str, Any]]:
        if form not in made:
            out = tmp_path_factory.mktemp(form)
            agents_ = {
                "t": {"model": models[form], "quantize": "int8", "update": "frozen"},
                "s": {"model": models[form], "quantize": "int8"},
            }
            flows = [
                {"from": "labels", "to": "s", "objective": "ce"},
                {"from": "t", "to": "s", "objective": "kl", "weight": 0.1},
            ]
            mesh = {
                "data": data(files, form),
                "agents": agents_,
                "flows": flows,
                "train": {"steps": 25, "batch_size": 16},
            }
            made[form] = out / "s", trained(mesh, out, "s")["s"]
        return made[form]

    return make


@pytest.mark.parametrize("form", ["mlp", "texts"])
def test_what_learned_to_be_rounded_is_measured_loaded_and_exported_rounded(
    form: str,
    students: Any,
    files: Path,
    capsys: Any,
) -> None:
    folder, figures = students(form)
    assert any(isinstance(part, Int8Linear) for part in kdmesh.load(folder).modules())
    said = told(capsys, "export", folder, "--to", "int8", "--data", files / "test.csv", "--quiet")
    record = json.loads((folder / "int8" / "export.json").read_text(encoding="utf-8"))
    assert record["format"] == "int8" and record["compared"]["tolerance"] is None and "ONNX of 8 bits" in said
    assert record["scored"]["agent"] == figures
    own = record["compared"]["largest_difference"]
    assert own <= STEP
    trained_ = Trained.read(folder)
    with exact(trained_.module):  # the whole weights are further away: what was measured is the rounding
        from kdmesh.inference.export.exporting import _compare
        from kdmesh.inference.export.forms import FORMS
        from kdmesh.inference.export.graph import graph_of
        from kdmesh.inference.trained import Settled

        graph = graph_of(trained_).eval()
        with Settled(trained_.module, trained_.device, "fp32", 1):
            answers = FORMS["int8"].open(folder / "int8" / "model.onnx", graph)
            whole = _compare(trained_, graph, answers, FORMS["int8"], None)["largest_difference"]
    assert own < whole
    assert record["scored"]["exported"]["accuracy"] == pytest.approx(figures["accuracy"], abs=0.03)


def test_the_folder_s_weights_are_whole_for_others(students: Any) -> None:
    folder, _ = students("texts")
    net = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    agent = kdmesh.load(folder)
    texts = ["it goes up by 3", "left"]
    tokens = agent.tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        plain, own = net(**tokens).logits, agent(texts)
        with exact(agent):
            assert torch.allclose(agent(texts), plain, atol=1e-5)
    assert 0 < (plain - own).abs().max() < 1


def test_a_file_of_8_bits_is_small_and_its_answers_do_not_depend_on_company(
    agents: Any,
    files: Path,
    tmp_path: Path,
    capsys: Any,
) -> None:
    folder, _ = agents("texts")
    for form in ("onnx", "int8"):
        told(capsys, "export", folder, "--to", form, "--data", files / "test.csv", "--quiet", "--out", tmp_path / form)
    import onnx

    kinds = {one.name: one.data_type for one in onnx.load(str(tmp_path / "int8" / "model.onnx")).graph.initializer}
    assert sum(kind == onnx.TensorProto.INT8 for kind in kinds.values()) >= 10
    session = onnxruntime.InferenceSession(str(tmp_path / "int8" / "model.onnx"), providers=["CPUExecutionProvider"])
    ids = np.arange(5, 47, dtype=np.int64).reshape(6, 7)

    def ask(rows: Any) -> Any:
        given = {"input_ids": rows, "attention_mask": np.ones_like(rows), "token_type_ids": np.zeros_like(rows)}
        return session.run(None, {one.name: given[one.name] for one in session.get_inputs()})[0]

    every = ask(ids)
    assert all(np.allclose(ask(ids[row : row + 1]), every[row : row + 1], atol=1e-6) for row in range(6))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing would say how good it still is"),
        (["--tolerance", "1e-9"], "ONNX of 8 bits is"),
    ],
)
def test_rounding_is_scored_or_bounded(words: list[str], said: str, agents: Any, capsys: Any) -> None:
    assert said in refused(capsys, "export", agents("mlp")[0], "--to", "int8", *words)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(4, 2)


@pytest.mark.parametrize(
    ("module", "said"),
    [(nn.ReLU(), "no linear layer"), (Heads(), "MultiheadAttention"),
     (nn.Sequential(nn.Embedding(3, 4), Conv1D(6, 4)), "weights of a Conv1D")],
)  # fmt: skip
def test_what_cannot_be_rounded_is_refused(module: nn.Module, said: str) -> None:
    with pytest.raises(MeshError, match=said):
        quantize(module)


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ({"model": {"mlp": {}}, "quantize": "int4"}, "agents.s.quantize"),
        ({"weights_of": "t", "quantize": "int8"}, "weights of its own"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(agent: dict[str, Any], said: str) -> None:
    with pytest.raises(MeshError, match=said):
        parse({"data": {"dataset": "digits"}, "agents": {"t": {"model": "mlp"}, "s": agent}})


def test_language_models_are_refused() -> None:
    model = {
        "hf": {
            "config": {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1},
            "tokenizer": {"characters": {}},
        }
    }
    mesh = {"task": "language_modelling", "data": {"dataset": {"text": {"path": "x.txt"}}},
            "agents": {"s": {"model": model, "quantize": "int8"}}}  # fmt: skip
    with pytest.raises(MeshError, match="is a language model") as error:
        check(make_plan(parse(mesh), registry()))
    assert error.value.where == "agents.s.quantize"
