"""A language model behind an endpoint teaches tokens: as llama.cpp scores given texts, place by place, and as vLLM."""

from __future__ import annotations

import json
import math

import pytest
import torch
from served_meshes import llama

from kdmesh.endpoints import client
from kdmesh.engine.check import check, examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.signals.sparse import TopKLogits
from kdmesh.spec.read import parse
from kdmesh.text.build import build

K = 4


@pytest.fixture(autouse=True)
def at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "store"))


def mesh(url, scores="positions", **flow):
    api = {"base_url": url, "model": "tiny", "tokenizer": {"characters": {}}, "max_length": 48, "scores": scores}
    return {
        "name": "m",
        "task": "language_modelling",
        "data": {"dataset": {"sums": {"below": 4}}, "train": 8, "validation": 3, "test": 3},
        "agents": {
            "gpt": {"model": {"api": {**api, "top": K}}, "update": "frozen"},
            "s": {"model": llama(8, vocabulary=None)},
        },
        "flows": [{"from": "gpt", "to": "s", "objective": "kl", "signal": {"top_k": {"k": K}}, **flow}],
        "train": {"epochs": 2, "batch_size": 4, "optimizer": {"sgd": {"lr": 0.1}}},
    }


@pytest.fixture
def model(served):
    """A server of a small model, the model, and what reads its texts."""
    alone = {"agents": {"s": {"model": llama(8, vocabulary=None)}}, "flows": [{"from": "labels", "to": "s"}]}
    alone["flows"][0]["objective"] = "ce"
    encoder = examine(make_plan(parse({**mesh(""), **alone}), registry())).reading.encoder("s")
    torch.manual_seed(3)
    config = llama(16, vocabulary=None)["hf"]["config"]
    net = build(task="language_modelling", config=config, **encoder.facts).eval().net

    def score(ids, k):
        with torch.no_grad():
            values, index = (
                net(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(0).topk(min(k, len(encoder.words())))
            )
        return [(n, encoder.word(n), v) for n, v in zip(index.tolist(), values.tolist(), strict=True)]

    server = served()
    server.score = score
    return server, net, encoder


def run(fields, tmp_path, **more):
    summary, folder, _ = run_once(Request(parse(fields), "inline", out=tmp_path / "runs", **more))
    return summary, folder.root


@pytest.mark.parametrize("scores", ["positions", "prompt_logprobs"])
def test_teaches_what_the_same_model_here_would(model, tmp_path, scores):
    server, net, encoder = model
    summary, root = run(mesh(server.url, scores), tmp_path)
    sent = len(server.bodies)
    net.save_pretrained(tmp_path / "net")
    encoder.tokenizer.save_pretrained(tmp_path / "net")
    here = mesh(server.url)
    here["agents"]["gpt"]["model"] = {"hf": {"path": str(tmp_path / "net"), "max_length": 48}}
    other, local = run(here, tmp_path)
    one, two = (r["agents"]["gpt"]["metrics"]["test"]["loss"] for r in (summary, other))
    assert one == pytest.approx(two, abs=0.05)  # a label beyond the listed ones has its share of the tail alone
    found, expected = (load(r) for r in (root, local))
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-4), name
    units = 14 * 3 if scores == "positions" else 14  # each sum has an answer of two tokens and its end, at most
    assert sent - 2 <= units and summary["endpoints"]["gpt"]["requests"] == sent
    again, _ = run(mesh(server.url, scores), tmp_path)
    assert len(server.bodies) == sent and again["endpoints"]["gpt"]["requests"] == 0


def load(root):
    from safetensors.torch import load_file

    return load_file(root / "agents" / "s" / "model.safetensors")


def test_its_signal_is_the_top_k_with_its_tail(model, tmp_path):
    server, net, encoder = model
    plan = make_plan(parse(mesh(server.url)), registry())
    lines = check(plan)
    assert any("tokens are listed at a place" in line for line in lines)
    assert any("is asked about" in line and "places in texts" in line for line in lines)
    from kdmesh.text.api import Served
    from kdmesh.text.api_settings import ApiConfig

    config = ApiConfig(base_url=server.url, model="tiny", top=K, scores="positions")
    module = Served(config, encoder.vocabulary)
    module.ask = lambda asks: [one.read(config, server.scored("/completion", one.body(config))) for one, _ in asks]
    found = examine(plan, anew=True)
    batch = found.reading.samples("gpt", torch.arange(3))
    signal = module(batch)
    with torch.no_grad():
        logits = net(input_ids=batch.ids).logits.flatten(0, 1)[batch.units]
    expected = TopKLogits.top(logits, K)
    assert torch.equal(signal.index, expected.index)
    assert torch.allclose(signal.values, expected.values, atol=1e-5)
    assert torch.allclose(signal.tail, expected.tail, atol=1e-4)


def test_of_what_a_student_writes(model, tmp_path):
    server, *_ = model
    fields = mesh(server.url, stream="w", refresh="step")
    fields["streams"] = {"w": {"generated_by": "s", "prompts": "train", "sampling": {"max_new_tokens": 3}}}
    summary, _ = run(fields, tmp_path)
    prompts = [json.dumps(body["prompt"]) for body in server.bodies if "n_probs" in body]
    assert len(prompts) == len(set(prompts)) > 10  # each beginning once, whoever wrote it
    assert summary["endpoints"]["gpt"]["sent"] == len(prompts) - 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"signal": "logits"}, "lists 4 tokens at a place, and not all"),
        ({"signal": {"top_k": {"k": 5}}}, "lists 4 tokens at a place, and 5 are asked for"),
        ({"objective": {"kl": {"temperature": 2}}}, "at temperature 2 cannot be computed"),
    ],
)
def test_refused(model, change, said):
    with pytest.raises(MeshError) as error:
        examine(make_plan(parse(mesh(model[0].url, **change)), registry()))
    assert said in str(error.value)


def test_servers_that_cannot(model, served):
    server, *_ = model
    for scores, ignored in (("positions", "n_probs"), ("prompt_logprobs", "prompt_logprobs")):
        server.ignores = {ignored}
        fields = mesh(server.url, scores)
        fields["agents"]["gpt"]["model"]["api"]["retries"] = 0
        with pytest.raises(MeshError, match=f"no log-probabilities.*{ignored}.*where a given text was to be scored"):
            examine(make_plan(parse(fields), registry()), anew=True)
    server.ignores = set()
    score = server.score
    server.score = lambda ids, k: [(n, f"<{text}>", value) for n, text, value in score(ids, k)]
    with pytest.raises(MeshError, match=r"is '<.*>' at the endpoint, and .* for gpt") as error:
        examine(make_plan(parse(mesh(server.url)), registry()), anew=True)
    assert error.value.instead == "tokenizer: that of the model which is served"
    server.score = lambda ids, k: [(n, text, math.log(0.5)) for n, text, _ in score(ids, k)]
    with pytest.raises(MeshError, match=r"sum to 2\.000"):
        examine(make_plan(parse(mesh(server.url)), registry()), anew=True)
