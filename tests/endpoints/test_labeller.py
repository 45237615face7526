"""A classifier behind an endpoint teaches a student: what is asked, kept, counted, paused and refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from served_meshes import WORDS, bert, classified, tops, write
from transformers import BertConfig, BertForSequenceClassification

from kdmesh.cli import main
from kdmesh.endpoints import client
from kdmesh.endpoints.replies import Choice, Reply, Token
from kdmesh.engine.check import check, examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed, RunPaused
from kdmesh.graph.planner import make_plan
from kdmesh.graph.resources import Resources
from kdmesh.placement import settle
from kdmesh.plugins import registry
from kdmesh.spec.read import parse, read_mesh
from kdmesh.streams.order import epoch_order
from kdmesh.text import tokenizers
from kdmesh.text.api import Labeller, texts_of, words_of
from kdmesh.text.api_settings import ApiConfig
from kdmesh.text.settings import TokenizerConfig


@pytest.fixture(autouse=True)
def at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "store"))


def run(fields, tmp_path, **more):
    summary, folder, _ = run_once(Request(parse(fields), "inline", out=tmp_path / "runs", **more))
    return summary, folder.root


def weights(root, agent="student"):
    return (root / "agents" / agent / "model.safetensors").read_bytes()


def test_teaches_a_student_and_sends_nothing_twice(served, tmp_path):
    server = served(tops=tops)
    first, root = run(classified(tmp_path, server.url), tmp_path)
    assert len(server.bodies) == 1 + 45  # a look at it, and each sample once
    assert len({json.dumps(body) for body in server.bodies}) == 46
    gpt = first["agents"]["gpt"]
    assert gpt["metrics"]["test"]["accuracy"] == 1.0 and gpt["latency_ms"] is None and gpt["parameters"] == 0
    asked = first["endpoints"]["gpt"]
    assert (asked["requests"], asked["sent"], asked["found"]) == (46, 45, 0)
    assert asked["tokens"] == sum(len(body["messages"][0]["content"].split()) + 1 for body in server.bodies)
    body = server.bodies[-1]
    assert (body["max_tokens"], body["temperature"], body["top_logprobs"]) == (1, 1.0, 20)
    assert "Which of these is it: animal, colour, number?" in body["messages"][0]["content"]
    assert f"tiny at {server.url}. Nothing of it is here." in (root / "agents/gpt/README.md").read_text()
    sent, gets = len(server.bodies), len(server.gets)
    second, again = run(classified(tmp_path, server.url), tmp_path)
    assert len(server.bodies) == sent and len(server.gets) == gets  # nothing at all
    assert weights(again) == weights(root)
    assert (second["endpoints"]["gpt"]["requests"], second["endpoints"]["gpt"]["found"]) == (0, 45)


def test_is_not_timed_where_agents_are_placed_by_what_they_take(served, tmp_path):
    server = served(tops=tops)
    plan = make_plan(parse({**classified(tmp_path, server.url), "placement": "auto"}), registry())
    found, before = examine(plan), len(server.bodies)
    placed = settle.resolve(plan, found, {}, Resources(2))
    assert len(server.bodies) == before and placed.plan.hosts and len(placed.facts["options"]) > 1


def test_a_plain_run_from_the_command_line_places_and_measures_what_is_here(served, tmp_path, capsys, monkeypatch):
    server = served(tops=tops)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(json.dumps(classified(tmp_path, server.url)), encoding="utf-8")
    assert main(["run", "m.yaml", "--measure"]) == 0, capsys.readouterr().err
    assert len(server.bodies) == 1 + 45


def test_without_a_store_it_is_asked_anew_and_learns_the_same(served, tmp_path):
    server = served(tops=tops)
    _, root = run(classified(tmp_path, server.url), tmp_path)
    _, other = run(classified(tmp_path, server.url), tmp_path, store="off")
    assert len(server.bodies) == 92 and weights(root) == weights(other)


def test_what_a_check_says(served, tmp_path):
    server = served(tops=tops)
    lines = check(make_plan(parse(classified(tmp_path, server.url)), registry()))
    assert "note: gpt is asked about 45 samples at most (30 of train, 6 of validation, 9 of test), each once" in lines
    assert any(line.startswith("note: endpoint gpt: tiny of vLLM b1 answers; 20 tokens are listed") for line in lines)
    check(make_plan(parse(classified(tmp_path, server.url)), registry()))
    assert len(server.bodies) == 2  # a check looks again each time


def test_is_not_measured_where_that_is_not_wanted(served, tmp_path):
    server = served(tops=tops)
    summary, _ = run(classified(tmp_path, server.url, measured=False), tmp_path)
    assert len(server.bodies) == 1 + 30 and summary["agents"]["gpt"]["metrics"]["test"] == {}
    assert "gpt is not measured, as agents.gpt.model.api.measured says" in summary["notes"]


def test_a_spent_budget_pauses_and_more_goes_on(served, tmp_path, capsys):
    server = served(tops=tops)
    fields = classified(tmp_path, server.url, budget={"requests": 20}, concurrency=1)
    with pytest.raises(RunPaused, match="the budget of gpt is spent: 20 requests of 20") as error:
        run(fields, tmp_path)
    (root,) = (tmp_path / "runs" / "m").iterdir()
    assert len(server.bodies) == 20 and f"kdmesh resume {root}" in error.value.__notes__[0]
    last = json.loads((root / "events.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "run_failed" and last["interrupted"]
    assert main(["resume", str(root), "--quiet"]) == 1 and len(server.bodies) == 20
    for wrong in ("gpt.requests=0", "gpt.budget=3", "student.requests=3", "gpt.tokens=3"):
        assert main(["resume", str(root), "--more", wrong]) == 2
    capsys.readouterr()
    assert main(["resume", str(root), "--quiet", "--more", "gpt.requests=26"]) == 0
    assert "endpoint gpt (tiny): 46 requests of 46" in capsys.readouterr().out
    assert len(server.bodies) == 46 and len({json.dumps(body) for body in server.bodies}) == 46
    summary = json.loads((root / "summary.json").read_text())
    assert (summary["endpoints"]["gpt"]["requests"], summary["endpoints"]["gpt"]["found"]) == (46, 19)
    assert main(["report", str(root)]) == 0
    assert "Asked of endpoints" in (root / "report.html").read_text()
    _, other = run(classified(tmp_path, served(tops=tops).url), tmp_path)
    assert weights(other) == weights(root)


def test_a_run_that_is_killed_goes_on_and_sends_nothing_twice(served, tmp_path):
    server = served(tops=tops)
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(json.dumps(classified(tmp_path, server.url, concurrency=1)))
    command = [sys.executable, "-m", "kdmesh", "run", str(mesh), "--backend", "inline", "--out", str(tmp_path / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(number):
        if number == 13:
            process.kill()

    server.before = kill
    assert process.wait(600) == -9
    (root,) = (tmp_path / "runs" / "m").iterdir()
    assert main(["resume", str(root), "--quiet"]) == 0
    again = [json.dumps(body) for body in server.bodies]
    assert len(again) == 47 and len(set(again)) == 46 and again[12] == again[13]  # the one that was under way
    assert json.loads((root / "summary.json").read_text())["endpoints"]["gpt"]["requests"] == 47


def test_no_secret_is_written_anywhere(served, tmp_path, monkeypatch, capsys):
    server, secret = served(tops=tops), "sk-" + "very" * 5 + "secret"
    monkeypatch.setenv("AN_API_KEY", secret)
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(json.dumps(classified(tmp_path, server.url, key_env="AN_API_KEY", retries=0)))
    out = ["--out", str(tmp_path / "runs"), "--backend", "inline"]
    assert main(["check", str(mesh)]) == 0
    server.faults = [None, None, None, 400]
    assert main(["run", str(mesh), *out]) == 2  # the server repeats the key
    server.faults = [500]
    assert main(["run", str(mesh), *out]) == 1
    assert main(["run", str(mesh), *out]) == 0
    assert set(server.keys) == {f"Bearer {secret}"}
    said = capsys.readouterr()
    assert "status 400" in said.err and "[key]" in said.err and secret not in said.out + said.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "gpt.jsonl" for path in files) and any("store" in path.parts for path in files)
    assert not [path for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize(("fault", "said"), [("broken", "no JSON"), ("drop", "broke off"), (503, "status 503")])
def test_a_bad_answer_is_named_with_stream_and_sample(served, tmp_path, fault, said):
    server = served(tops=tops)
    fields = classified(tmp_path, server.url, concurrency=1, retries=1)
    server.before = lambda number: server.faults.extend([fault, fault]) if number == 4 else None
    with pytest.raises(RunFailed, match=said) as error:
        run(fields, tmp_path)
    what = str(error.value)
    assert server.url in what and "texts.jsonl, line " in what and "of the stream 'train'" in what
    run(fields, tmp_path)  # a server that is well again is asked for the rest
    assert len(server.bodies) == 46 + 2


def test_a_model_that_changes_between_runs(served, tmp_path):
    server = served(tops=tops)
    run(classified(tmp_path, server.url), tmp_path)
    server.build = "b2"
    run(classified(tmp_path, server.url), tmp_path)  # nobody is asked
    with pytest.raises(RunFailed, match="it was vLLM b1, and is vLLM b2"):
        run(classified(tmp_path, server.url, prompt="{{ text }}\n{{ labels }}?"), tmp_path)
    check(make_plan(parse(classified(tmp_path, server.url)), registry()))
    sent = len(server.bodies)
    summary, _ = run(classified(tmp_path, server.url), tmp_path)  # answers of another model are others
    assert len(server.bodies) == sent + 45 and summary["endpoints"]["gpt"]["build"] == "vLLM b2"
    told = "gpt: the store has 45 answers of another model there (build vLLM b1), which are not taken"
    assert told in summary["notes"]


def test_answers_of_other_weights_under_the_same_name_are_not_taken(served, tmp_path):
    server, notes = served(tops=tops), []
    for number, sha in enumerate(("a" * 64, "b" * 64, "a" * 64)):
        summary, _ = run(classified(tmp_path, server.url, sha256=sha, measured=False), tmp_path)
        assert len(server.bodies) == (1 + 30) * min(2, number + 1)  # the third run finds all of the first
        notes.append([one for one in summary["notes"] if "not taken" in one])
    assert notes[0] == notes[2] == []
    said = f"gpt: the store has 30 answers of another model there (sha256 {'a' * 64}), which are not taken"
    assert notes[1] == [said]


def test_a_server_that_lists_fewer_tokens_than_asked_while_it_is_asked(served, tmp_path):
    server = served(tops=tops)
    server.before = lambda number: server.ignores.update(["top_logprobs"] if number > 4 else [])
    with pytest.raises(RunFailed, match="it lists 1 tokens at a place, and 20 were asked for, after 2 tries, for "):
        run(classified(tmp_path, server.url, concurrency=1, retries=1), tmp_path)
    server.before, server.ignores = (lambda number: None), set()
    run(classified(tmp_path, server.url), tmp_path)  # what was listed too short is asked for again
    assert len(server.bodies) == 46 + 2


def test_tokens_that_are_listed_in_another_order_say_the_same(served, tmp_path):
    def turned(prompt):
        return dict(reversed([*tops(prompt).items()]))

    _, root = run(classified(tmp_path, served(tops=tops).url), tmp_path)
    server = served(tops=turned)
    logprobs = server.logprobs
    server.logprobs = lambda *given: _turned(logprobs(*given))
    _, other = run(classified(tmp_path, server.url), tmp_path)
    assert weights(other) == weights(root)


def _turned(told):
    (one,) = told["content"]
    return {"content": [{**one, "top_logprobs": one["top_logprobs"][::-1]}]}


def test_an_endpoint_that_is_down_is_said_by_check(served, tmp_path):
    server = served(tops=tops)
    server.close()
    with pytest.raises(MeshError, match="nothing answers there") as error:
        check(make_plan(parse(classified(tmp_path, server.url, retries=0)), registry()))
    assert error.value.where == "agents.gpt.model.api" and not isinstance(error.value, RunFailed)


def wrong(fields, tmp_path, **changes):
    for path, value in changes.items():
        place = fields
        *parts, last = path.split("__")
        for part in parts:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[last] = value
    return fields


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agents__gpt__update": "grad"}, "has no weights that could change"),
        ({"agents__gpt__seed": 3}, "`seed` has no effect"),
        ({"agents__gpt__taps": {"mid": "layers.1"}}, "shows none of its layers"),
        ({"flows__0__objective": {"kl": {"temperature": 4}}}, "at temperature 4 cannot be computed"),
        (
            {
                "consensus": {"c": {"rule": "mean", "temperature": 3}},
                "flows": [
                    {"from": "gpt", "to": "c"},
                    {"from": "c", "to": "student", "objective": {"kl": {"temperature": 3}}},
                ],
            },
            "at temperature 3 cannot be computed",
        ),
        (
            {"agents__mean": {"update": {"ema": {"of": "gpt"}}}},
            "mean follows gpt, which is frozen",
        ),
        ({"agents__gpt__train": {"forward_size": 3}}, "an endpoint, so that `forward_size` has no effect"),
        (
            {
                "flows": [
                    {"from": "labels", "to": "student", "objective": "ce"},
                    {"from": "gpt", "to": "student", "as": "weights", "refresh": "once"},
                ]
            },
            "gpt is behind an endpoint, and has no weights that could flow",
        ),
        ({"streams": {"p": {"of": "train", "private": True}}, "flows__0__stream": "p"}, "would be sent its samples"),
        ({"agents__gpt__model__api__tokenizer": {"characters": {}}}, "`tokenizer` has no effect"),
        ({"agents__gpt__model__api__words": {"animal": "a b", "colour": "a c"}}, "begin alike"),
        ({"agents__gpt__model__api__words": {"plant": "a"}}, "no label 'plant'"),
        ({"agents__gpt__model__api__draws": 3}, "read: answers"),
        ({"agents__gpt__model__api__base_url": "http://example.com/v1"}, "https"),
        ({"agents__gpt__model__api__key_env": "sk-1234567"}, "not the key"),
        ({"agents__gpt__model__api__top": 30}, "lists 23 tokens at a place, and 30 were asked for"),
    ],
)
def test_meshes_that_are_refused(served, tmp_path, changes, said):
    server = served(tops=tops)
    fields = wrong(classified(tmp_path, server.url), tmp_path, **changes)
    with pytest.raises(MeshError) as error:
        examine(make_plan(parse(fields), registry()))
    assert said in str(error.value) and not isinstance(error.value, RunFailed) and "sk-1234567" not in str(error.value)


def test_a_temperature_is_right_where_every_label_is_listed(served, tmp_path):
    server = served(tops=tops)
    fields = classified(tmp_path, server.url, missing="refuse")
    fields["flows"][0]["objective"] = {"kl": {"temperature": 4}}
    run(fields, tmp_path)


def labeller(**config):
    made = ApiConfig(base_url="http://127.0.0.1:1/v1", model="m", **config)
    return Labeller(made, words_of(made, ["negative", "positive"], 2))


def test_words_of_labels_that_are_numbers():
    made = ApiConfig(base_url="http://127.0.0.1:1/v1", model="m", words={"0": "bad", "1": "good"})
    assert words_of(made, [], 2) == ["bad", "good"]
    for words in ({}, {"0": "bad"}, {"0": "bad", "2": "good"}):
        with pytest.raises(MeshError, match=r"classes of the data are the numbers 0 to 1|no label '2'"):
            words_of(made.model_copy(update={"words": words}), [], 2)


def read(module, top, **shares):
    module.ask = lambda asks: [
        Reply((Choice("", "length", (Token("x", -1.0, tuple((t, math.log(p)) for t, p in top.items())),)),), 1)
        for _ in asks
    ]
    from kdmesh.streams.tokens import Encoded, Row
    from kdmesh.text.api import _bytes

    return module(Encoded.of([Row(_bytes()("a text")["input_ids"])], 0).whole())[0].exp()


def test_tokens_that_begin_a_label_count_together():
    found = read(labeller(), {" pos": 0.2, "Positive": 0.3, "Ġneg": 0.1, "p": 0.05, "n": 0.05, "other": 0.1, "": 0.1})
    assert torch.allclose(found, torch.tensor([0.15, 0.55]) / 0.7)
    module = labeller()
    found = read(module, {"pos": 0.6, "x": 0.3, "y": 0.02})
    assert torch.allclose(found, torch.tensor([0.02, 0.6]) / 0.62)  # at most as much as the least that is listed
    assert "1 were begun by no listed token" in module.noticed()[0]
    found = read(labeller(), {"pos": 0.6, "x": 0.39})
    assert torch.allclose(found, torch.tensor([0.01, 0.6]) / 0.61)  # nor more than what is left
    with pytest.raises(
        RunFailed, match="none of the 2 tokens that are listed begins 'negative', for the text 'a text'"
    ):
        read(labeller(missing="refuse"), {"pos": 0.6, "x": 0.3})


def test_answers_are_counted_where_nothing_else_is_served(served, tmp_path):
    def answer(prompt, number, body):
        best = max(tops(prompt).items(), key=lambda pair: pair[1])[0].strip()
        return best if body["temperature"] <= 1 and number < 3 else f"perhaps {body.get('seed')} {number}"

    server = served(answer=answer)
    server.ignores = {"logprobs"}
    summary, _ = run(classified(tmp_path, server.url, read="answers"), tmp_path)
    assert len(server.bodies) == 4 + 45 and server.bodies[-1]["n"] == 5
    gpt = summary["agents"]["gpt"]["metrics"]["test"]
    assert gpt["accuracy"] == 1.0 and gpt["loss"] == pytest.approx(-math.log(3.5 / 4.5), abs=1e-6)
    assert "gpt: 90 of 225 answers were none of the labels' words" in summary["notes"]
    other = classified(tmp_path, server.url, read="answers", together=False, draws=3)
    summary, _ = run(other, tmp_path)
    assert "n" not in server.bodies[-1] and len(server.bodies) == 49 + 4 + 3 * 45


def test_bytes_come_back_as_they_were():
    from kdmesh.text.api import _bytes

    for text in ("plain", "Zwölf 🥨 \n\t x", "  spaces ", "a</s>b", "<s>", "\x00"):
        assert texts_of(_bytes()(text)["input_ids"]) == (text, None) or "</s>" in text
        assert texts_of(_bytes()(text, "and a second")["input_ids"])[0][:3] == text[:3]
    assert texts_of(_bytes()("one", "two")["input_ids"]) == ("one", "two")


def test_the_bundled_topology_gives_a_student_that_replaces_it(served, tmp_path):
    server = served(tops=tops)
    fields = read_mesh("api-classifier").dump()
    fields["data"]["dataset"]["text"]["path"] = str(write(tmp_path, 120))
    fields["agents"]["teacher"]["model"]["api"] |= {"base_url": server.url, "model": "tiny"}
    fields["agents"]["student"]["model"] = bert(32)
    fields |= {
        "text": {"max_length": 48},
        "train": {"epochs": 60, "batch_size": 8, "optimizer": {"adamw": {"lr": 3e-3}}},
    }
    summary, _ = run(fields, tmp_path)
    found = {name: facts["metrics"]["test"]["accuracy"] for name, facts in summary["agents"].items()}
    assert found["teacher"] == 1.0 and found["student"] >= 0.9  # which has never seen a label
    assert summary["endpoints"]["teacher"]["requests"] == len(server.bodies) == 121


def test_a_student_ends_with_the_weights_of_a_plain_loop(served, tmp_path):
    """Over transformers, with what the server says of each label; a batch learns it as any teacher's answers."""
    server = served(tops=tops)
    fields = classified(tmp_path, server.url)
    lines = [json.loads(line) for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    words = tokenizers.load(TokenizerConfig(bpe={"vocabulary": 300}), lambda: [line["text"] for line in lines])
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, hidden_dropout_prob=0, attention_probs_dropout_prob=0, num_labels=3,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "s")
    words.save_pretrained(tmp_path / "s")
    fields["agents"]["student"] = {"model": {"hf": {"path": str(tmp_path / "s"), "max_length": 60}}}
    fields["train"] = {**fields["train"], "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}}
    del fields["text"]
    net = BertForSequenceClassification.from_pretrained(tmp_path / "s").train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
    rows = examine(make_plan(parse(fields), registry())).streams["train"].rows
    for epoch in range(2):
        for at in rows[epoch_order(0, "train", epoch, len(rows))].split(8):
            texts = [lines[row]["text"] for row in at.tolist()]
            said = []
            for text in texts:
                shares = [math.exp(tops(text)[f" {label.capitalize()}"]) for label in sorted(WORDS)]
                said.append([math.log(share / sum(shares)) for share in shares])
            own = net(**words(texts, padding=True, return_tensors="pt")).logits
            optimizer.zero_grad()
            target = torch.tensor(said).softmax(-1)
            torch.nn.functional.kl_div(own.log_softmax(-1), target, reduction="batchmean").backward()
            optimizer.step()
    _, root = run(fields, tmp_path)
    start = BertForSequenceClassification.from_pretrained(tmp_path / "s").state_dict()
    found = BertForSequenceClassification.from_pretrained(root / "agents" / "student").state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(found[name], value), name
        assert not torch.equal(found[name], start[name]), name


@pytest.mark.ray
def test_on_ray_as_inline(served, tmp_path, ray_session):
    server = served(tops=tops)
    _, root = run(classified(tmp_path, server.url), tmp_path)
    sent = len(server.bodies)
    _, folder, _ = run_once(
        Request(
            parse({**classified(tmp_path, server.url), "placement": "spread"}), "ray", out=tmp_path / "ray", store="off"
        ),
        session=ray_session,
    )
    assert weights(folder.root) == weights(root) and len(server.bodies) == 2 * sent
