"""An endpoint that writes the texts of a stream: what is sent, what readers see of what comes back, and refusals."""

from __future__ import annotations

import json
import math

import pytest
from served_meshes import bert, written

from kdmesh.endpoints import client
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


@pytest.fixture(autouse=True)
def at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "store"))


def run(fields, tmp_path, **more):
    summary, folder, _ = run_once(Request(parse(fields), "inline", out=tmp_path / "runs", **more))
    return summary, folder.root


def lines(root):
    return [json.loads(line) for line in (root / "streams" / "w.jsonl").read_text().splitlines()]


def adds(prompt, number, body):
    """What a sum is, drawn answers one more each; by a server that stops where it is asked to."""
    if "=" not in prompt:
        return str(body.get("seed", 0)) if body["temperature"] else "Paris"
    one, two = prompt.removesuffix("=").split("+")
    return str(int(one) + int(two) + (number if body["temperature"] else 0))


def test_writes_once_and_never_again(served, tmp_path):
    server = served(answer=adds)
    summary, root = run(written(server.url, {"samples": 2, "top_p": 0.9, "stop": ["\n"]}), tmp_path)
    asked = server.bodies[4:]  # after a look at it
    assert len(asked) == 12 and {(b["n"], b["top_p"], b["max_tokens"], b["temperature"]) for b in asked} == {
        (2, 0.9, 4, 1.0)
    }
    assert len({body["seed"] for body in asked}) == 12 and asked[0]["stop"] == ["\n"]
    found = lines(root)
    assert len(found) == 24 and all(line["ended"] and line["producer"] == "gpt" for line in found)
    for line in found:
        one, two = line["prompt"].removesuffix("=").split("+")
        assert line["text"] == str(int(one) + int(two) + line["draw"])
    assert len({line["weights_sha256"] for line in found}) == 1
    assert summary["endpoints"]["gpt"]["requests"] == 16
    assert "gpt is not measured: its endpoint writes texts, and says nothing of those of others" in summary["notes"]
    sent, gets = len(server.bodies), len(server.gets)
    _, again = run(written(server.url, {"samples": 2, "top_p": 0.9, "stop": ["\n"]}), tmp_path)
    assert (len(server.bodies), len(server.gets)) == (sent, gets)
    assert (again / "agents/s/model.safetensors").read_bytes() == (root / "agents/s/model.safetensors").read_bytes()


def test_greedy_and_completions_and_one_by_one(served, tmp_path):
    server = served(answer=adds)
    _, root = run(written(server.url, {"greedy": True}, {"route": "completions"}), tmp_path)
    body = server.bodies[-1]
    assert body["temperature"] == 0.0 and "seed" not in body and body["prompt"].endswith("=")
    assert all(line["draw"] == 0 for line in lines(root))
    server.bodies.clear()
    run(written(server.url, {"samples": 3}, {"together": False}), tmp_path)
    assert len(server.bodies) == 4 + 36 and not any("n" in body for body in server.bodies)
    assert len({body.get("seed") for body in server.bodies[4:]}) == 36


def test_each_period_has_texts_of_its_own(served, tmp_path):
    server = served(answer=adds)
    _, root = run(written(server.url, refresh="epoch"), tmp_path)
    assert len(server.bodies) == 4 + 2 * 12 and len({body.get("seed") for body in server.bodies[4:]}) == 24
    assert {line["step"] for line in lines(root)} == {0, 3}
    server.bodies.clear()  # steps 2 and 3, of two epochs, may ask about a sample twice: it is one text
    run(written(server.url, refresh="2 steps"), tmp_path, store="off")
    assert len({json.dumps(body) for body in server.bodies}) == len(server.bodies) <= 4 + 24
    assert not any("n" in body for body in server.bodies)


def test_an_answer_that_does_not_end(served, tmp_path):
    server = served(answer=lambda prompt, number, body: "123456789" if "=" in prompt else str(body.get("seed", 0)))
    _, root = run(written(server.url), tmp_path)
    assert {(line["text"], line["tokens"], line["ended"]) for line in lines(root)} == {("1234", 4, False)}


def test_a_template_and_a_system_prompt(served, tmp_path):
    server = served(answer=lambda prompt, number, body: "7" if "What" in prompt else str(body.get("seed", 0)))
    api = {"system": "Add."}
    _, root = run(written(server.url, api=api, template="What is {{ prompt }}"), tmp_path)
    turns = server.bodies[-1]["messages"]
    assert turns[0] == {"role": "system", "content": "Add."} and turns[1]["content"].startswith("What is ")
    assert not lines(root)[0]["prompt"].startswith("What")  # readers see the data's prompt


def test_bad_answers_are_named_with_stream_and_sample(served, tmp_path):
    server = served(answer=adds)
    server.before = lambda number: server.faults.extend(["fewer"] * 2) if number == 6 else None
    with pytest.raises(RunFailed, match=r"gives 1 of 2 answers .*, for \d\+\d, of the stream 'w'"):
        run(written(server.url, {"samples": 2}, {"concurrency": 1, "retries": 1}), tmp_path)


def api(**change):
    return lambda fields: fields["agents"]["gpt"]["model"]["api"].update(change)


def kept(how):
    return lambda fields: fields["streams"]["w"].update(keep=[how])


def private(fields):
    fields["streams"] |= {"p": {"of": "train", "private": True}, "w": {**fields["streams"]["w"], "prompts": "p"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (api(tokenizer=None), "those who read it read tokens"),
        (api(tokenizer={"bpe": {"vocabulary": 300}}), "another tokenizer"),
        (api(top=5), "`top` has no effect"),
        (lambda fields: fields["streams"]["w"]["sampling"].update(top_k=5), "leave it out without a word"),
        (private, "private"),
        (kept({"perplexity": {"max": 9}}), "'perplexity' reads how likely texts are to gpt, and no endpoint says that"),
        (kept("likeliest"), "'likeliest' reads how likely texts are to gpt"),
    ],
)
def test_refused(served, change, said):
    server = served(answer=adds)
    fields = written(server.url)
    change(fields)
    with pytest.raises(MeshError) as error:
        examine(make_plan(parse(fields), registry()))
    assert said in str(error.value) and not server.bodies


def test_a_flow_of_what_it_says_of_texts_is_refused(served, tmp_path):
    server = served(answer=adds)
    fields = written(server.url)
    fields["flows"].append({"from": "gpt", "to": "s", "objective": {"kl": {"temperature": 1}}, "stream": "w"})
    with pytest.raises(MeshError, match="says nothing of those of others"):
        examine(make_plan(parse(fields), registry()))


def test_writes_new_texts_of_classes_for_a_classifier(served, tmp_path):
    said = {"even": "forty-two", "odd": "seven"}

    def writes(prompt, number, body):
        if not prompt.startswith("A number"):
            return str(body.get("seed", 0))
        return said[prompt.split()[-1]] + "." * number

    server = served(answer=writes)
    fields = written(server.url, {"samples": 2, "max_new_tokens": 16}, template="A number that is {{ label }}")
    fields |= {"task": "classification", "data": {"dataset": {"numerals": {"below": 40}}, "train": 12, "validation": 4}}
    fields["agents"]["s"] = {"model": bert(8)}
    fields["text"] = {"max_length": 48}
    summary, root = run(fields, tmp_path)
    assert {(line["label"], line["text"].rstrip(".")) for line in lines(root)} == {*said.items()}
    assert summary["streams"]["w"]["kept"] > 0 and summary["agents"]["s"]["updates"] > 0
    assert summary["agents"]["gpt"]["role"] == "writer"
    sent = len(server.bodies)
    _, again = run(fields, tmp_path)
    assert len(server.bodies) == sent
    assert (again / "agents/s/model.safetensors").read_bytes() == (root / "agents/s/model.safetensors").read_bytes()


def reasoned(server, marks, **sampling):
    """A mesh whose writer thinks, with 24 tokens for it."""
    server.reasons = lambda prompt: "add " if "=" in prompt else ""
    fields = written(server.url, {"max_new_tokens": 24, **sampling})
    if marks:  # whose characters the data lack
        fields["agents"]["gpt"]["model"]["api"]["tokenizer"] = bpe = {"bpe": {"vocabulary": 300}}
        fields["agents"]["s"]["model"]["hf"]["tokenizer"] = bpe
        fields["text"] = {"reasoning": marks}
    return fields


def test_reasoning_that_stands_apart_is_no_part_of_an_answer(served, tmp_path):
    summary, root = run(reasoned(served(answer=adds), None), tmp_path)
    assert all(line["text"].isdigit() for line in lines(root))
    (note,) = [one for one in summary["notes"] if "reasoning" in one]
    assert note.startswith("gpt: 12 of its answers came with reasoning apart, which is left out")


@pytest.mark.parametrize(("marks", "begin"), [(["<a>", "</a>"], "<a>"), (["", "</a>"], "")])
def test_reasoning_is_part_of_a_text_where_marks_say_what_it_is(served, tmp_path, marks, begin):
    fields = reasoned(served(answer=adds), marks)
    summary, root = run(fields, tmp_path)
    for line in lines(root):
        one, two = line["prompt"].removesuffix("=").split("+")
        assert line["text"] == f"{begin}add </a>{int(one) + int(two)}" and line["ended"]
    assert not any("reasoning" in one for one in summary["notes"])


def test_an_answer_that_is_cut_within_its_reasoning(served, tmp_path):
    server = served(answer=lambda *given: "" if "=" in given[0] else adds(*given))
    with pytest.raises(RunFailed, match=r"gpt wrote nothing but reasoning, which is left out, for \d\+\d") as error:
        run(reasoned(server, None), tmp_path)
    assert error.value.where == "streams.w.sampling.max_new_tokens"
    _, root = run(reasoned(server, ["<a>", "</a>"]), tmp_path)
    assert {(line["text"], line["ended"]) for line in lines(root)} == {("<a>add ", False)}


def test_its_texts_say_which_model_wrote_them_and_where(served, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-secret")
    server = served(answer=adds)
    _, root = run(written(server.url, api={"key_env": "A_KEY"}), tmp_path)
    told = {json.dumps(line["served"]) for line in lines(root)}
    assert told == {json.dumps({"model": "tiny", "host": f"127.0.0.1:{server.port}"})}
    assert "A_KEY" not in (root / "streams" / "w.jsonl").read_text()


def test_a_labeller_behind_an_endpoint_confirms_what_another_writes(served, tmp_path):
    texts = {"even": "forty-two", "odd": "seven"}
    writer = served(answer=lambda prompt, number, body: texts.get(prompt.split()[-1], str(body.get("seed"))))
    shares = {"even": 0.8, "odd": 0.1, "x": 0.05}
    judge = served(tops=lambda prompt: {name: math.log(share) for name, share in shares.items()})
    fields = written(writer.url, {"max_new_tokens": 16}, template="A number that is {{ label }}")
    fields |= {"task": "classification", "data": {"dataset": {"numerals": {"below": 40}}, "train": 12, "validation": 4}}
    fields["agents"] |= {
        "s": {"model": bert(8)},
        "judge": {"model": {"api": {"base_url": judge.url, "model": "tiny", "top": 3}}, "update": "frozen"},
    }
    fields["streams"]["w"]["keep"] = [{"confirmed": {"of": ["judge"]}}]
    _, root = run({**fields, "text": {"max_length": 48}}, tmp_path)
    assert {(line["label"], line["kept"]) for line in lines(root)} == {("even", True), ("odd", False)}
    asked = [body["messages"][0]["content"].partition("\n")[0] for body in judge.bodies]
    assert all(asked.count(text) == 1 for text in texts.values())  # however often it was written
