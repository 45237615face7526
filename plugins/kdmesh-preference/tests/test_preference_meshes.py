"""Meshes with pairs: the package's own, equal bits wherever and however often they are broken off, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kdmesh import Mesh, MeshError
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine import teach
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse, read_mesh
from kdmesh.testing.run_mesh import shared_ray
from transformers import AutoModelForCausalLM, AutoTokenizer

MESHES = Path(__file__).parents[1] / "meshes"
CONFIG = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16}  # fmt: skip
MODEL = {"hf": {"config": CONFIG, "tokenizer": {"characters": {}}}}
PAIRS: dict[str, Any] = {"pairs": {"of": "train", "pairs": True}}
SUMS = {"dataset": {"sums": {"below": 6, "wrong": True}}}


def mesh(**more: Any) -> dict[str, Any]:
    """A student that goes on from its reference, and a teacher beside it, whose margins it learns too."""
    flow = {"to": "s", "stream": "pairs"}
    return {
        "task": "language_modelling",
        "data": SUMS,
        "text": {"max_length": 16},
        "agents": {"r": {"model": MODEL}, "t": {"model": MODEL}, "s": {"model": MODEL}},
        "streams": PAIRS,
        "flows": [
            {"from": "labels", "to": "r", "objective": "ce"},
            {"from": "r", "to": "s", "as": "weights", "refresh": "once"},
            {"from": "r", **flow, "objective": {"dpo": {"beta": 0.5, "label_smoothing": 0.1}}},
            {"from": "labels", "to": "t", "objective": "ce"},
            {"from": "t", **flow, "objective": {"dpo_distilled": {"beta": 0.5}}, "refresh": "step", "weight": 0.5},
        ],
        "train": {"epochs": 2, "batch_size": 5, "optimizer": {"adamw": {"lr": 3e-3}}},
        **more,
    }


def made_by_agents() -> dict[str, Any]:
    """The same student on pairs that agents make.

    Right over wrong of one teacher, the best over the worst of another by verifiers, and, of the student's own texts,
    what a judge finds likeliest over what it finds least likely.
    """
    sampling = {"max_new_tokens": 3, "samples": 5}
    written: dict[str, Any] = {"prompts": "train", "sampling": sampling}
    verifiers = ["numeric_answer", {"pattern": {"match": "[0-4]", "weight": 0.5}}]
    streams = {
        "right": {"generated_by": "t", "refresh": "once", **written, "pairs": {"answer": {"numeric": True}}},
        "best": {"generated_by": "r", "refresh": "once", **written, "reward": verifiers, "pairs": "best"},
        "judged": {"generated_by": "s", "refresh": "2 steps", **written, "pairs": {"likeliest": {"of": "j"}}},
    }
    fields = mesh(streams=streams)
    distilled = {"dpo_distilled": {"beta": 0.5}}
    fields["agents"]["j"] = {"model": MODEL, "update": "frozen"}
    fields["flows"][2:] = [
        {"from": "labels", "to": "t", "objective": "ce"},
        {"from": "r", "to": "s", "stream": "right", "objective": {"dpo": {"beta": 0.5}}},
        {"from": "t", "to": "s", "stream": "best", "objective": distilled},
        {"from": "r", "to": "s", "stream": "judged", "objective": {"dpo": {"beta": 0.5}}},
    ]
    return fields


def outcome(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What must not depend on breaks and places."""
    session = more.pop("session", None)
    backend = "inline" if session is None else session.name
    summary = run_once(Request(parse(fields), backend, checkpoint_seconds=0, **more), session=session)[0]
    return {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many chunks were run, and before which one to break off; there is a checkpoint after every one."""
    monkeypatch.setattr(teach, "SECONDS", 0.0)
    monkeypatch.setattr(teach, "WINDOW", 2)
    known, inner = {"made": 0, "last": 0}, InlineBackend.call

    def call(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        known["made"] += method == "run"
        if known["last"] and known["made"] == known["last"]:
            raise Killed
        return inner(self, host, method, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    return known


ACCUMULATED = mesh()
ACCUMULATED["train"] |= {"accumulate": 2}
MADE = made_by_agents()


@pytest.mark.parametrize("fields", [mesh(), ACCUMULATED, MADE], ids=["plain", "accumulated", "made by agents"])
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    fields: dict[str, Any], tmp_path: Path, calls: dict[str, int]
) -> None:
    expected: dict[str, Any] = {}
    for placement in ("together", "spread"):
        calls.update(made=0, last=0)
        found = outcome({**fields, "placement": placement})
        expected = expected or found
        assert found == expected
        whole, out = calls["made"], tmp_path / placement
        calls.update(made=0, last=whole * 4 // 5 + 1)
        with pytest.raises(KeyboardInterrupt):
            outcome({**fields, "placement": placement}, out=out)
        calls.update(made=0, last=0)
        (folder,) = out.glob("*/*")
        assert outcome({**fields, "placement": placement}, resume=folder) == expected
        assert 0 < calls["made"] < whole


@pytest.mark.ray
@pytest.mark.parametrize("fields", [mesh(), MADE], ids=["given", "made by agents"])
def test_on_ray_they_are_the_same(fields: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """On one Ray, which the whole session of pytest shares."""
    fields = {**fields, "placement": {"a": ["r", "t"], "b": ["s", "j"]} if "j" in fields["agents"] else "spread"}
    assert outcome(fields, session=shared_ray(request.config).session()) == outcome(fields)


@pytest.mark.parametrize("name", ["preference", "preference-distilled"])
def test_a_mesh_of_the_package_runs(name: str) -> None:
    made = read_mesh(str(MESHES / f"{name}.yaml")).dump()
    made["data"]["dataset"]["sums"]["below"] = 6
    made["train"]["epochs"] = 3
    result = Mesh(**made).run(backend="inline")
    figures = result["student"].metrics["test"]
    assert 0 <= figures["pair_accuracy"] <= 1 and figures["pair_margin"] != 0
    assert "pair_accuracy" in result["base"].metrics["test"]["undefined"]
    assert result["student"].weights_sha256 != result["base"].weights_sha256


def test_figures_of_pairs_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Of the exported folders, by transformers alone, each answer by itself."""
    metrics = [{"pair_margin": {"of": "r"}}, {"pair_accuracy": {"of": "r"}}]
    result = Mesh(**mesh(metrics=metrics)).run(backend="inline", out=tmp_path)
    (folder,) = tmp_path.glob("*/*")
    from kdmesh.builtin.datasets.sums import sums

    table = sums(below=6, wrong=True)
    margins = {}
    for name in "rst":
        net = AutoModelForCausalLM.from_pretrained(folder / "agents" / name).eval()
        words = AutoTokenizer.from_pretrained(folder / "agents" / name)

        def said(prompt: str, answer: str, net: Any = net, words: Any = words) -> float:
            asked = words(prompt)["input_ids"]
            asked = asked[:-1] if asked[-1] == words.eos_token_id else asked
            ids = [*asked, *words(answer, add_special_tokens=False)["input_ids"], words.eos_token_id]
            with torch.no_grad():
                log_p = net(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            return sum(float(log_p[at - 1, ids[at]]) for at in range(len(asked), len(ids)))

        test = [table.texts[row] for row in table.official["test"].tolist()]
        margins[name] = [said(str(one.prompt), one.text) - said(str(one.prompt), str(one.rejected)) for one in test]
    for name in "st":
        over = [one - other for one, other in zip(margins[name], margins["r"], strict=True)]
        figures = result[name].metrics["test"]
        assert figures["pair_margin"] == pytest.approx(sum(over) / len(over), abs=1e-5)
        assert figures["pair_accuracy"] == pytest.approx(sum(one > 0 for one in over) / len(over))


def test_labels_of_pairs_are_needed_by_dpo_alone() -> None:
    hidden = {"pairs": {**PAIRS["pairs"], "labels": False}}
    distilled = mesh()["flows"]
    with pytest.raises(MeshError, match="'dpo' needs labels, and stream 'pairs' has none"):
        Mesh(**mesh(streams=hidden)).plan()
    del distilled[2]
    Mesh(**mesh(streams=hidden, flows=distilled)).plan()


@pytest.mark.parametrize("teacher", ["r", "t"])
def test_one_that_cuts_texts_into_other_tokens_is_refused_by_name(teacher: str) -> None:
    """A reference, or a teacher of margins: of what the student reads it says nothing."""
    fields = mesh()
    words = {"hf": {**MODEL["hf"], "tokenizer": {"bpe": {"vocabulary": 300}}}}
    fields["agents"][teacher] = {"model": words, "update": "frozen"}
    fields["flows"] = [flow for flow in fields["flows"] if flow["to"] == "s" and flow.get("as") != "weights"]
    number = [flow["from"] for flow in fields["flows"]].index(teacher)
    with pytest.raises(MeshError, match=f"{teacher} and s cut texts into different tokens") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == f"flows.{number}"
    assert caught.value.instead == "agents with one tokenizer and limit"


def test_a_pair_that_is_longer_than_the_context_is_named() -> None:
    with pytest.raises(MeshError, match=r"agents\.s: \d\+\d, rejected answer.* is cut away .* in the pairs of 'pairs'"):
        examine(make_plan(parse(mesh(text={"max_length": 5})), registry()))


REFUSED = {
    "one answer": ({"stream": "train"}, "compares two answers to a prompt, and samples of 'train' have one"),
    "a group": ({"denominator": {"group": "kind"}}, "not those of single samples"),
    "a gate of rows": ({"gate": {"small_loss": {"forget": 0.5}}}, "is given no rows of a batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_for_pairs_is_refused(name: str) -> None:
    more, told = REFUSED[name]
    flows = mesh()["flows"]
    flows[2] |= more
    with pytest.raises(MeshError, match=told):
        Mesh(**mesh(flows=flows)).plan()
