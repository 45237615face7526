"""An endpoint as writer, teacher of tokens, judge and debater: alike on Ray, and killed and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from hashlib import sha256

import pytest
from served_meshes import llama, written
from test_token_teacher import load, model  # noqa: F401  # a fixture
from test_token_teacher import mesh as taught

from kdmesh.cli import main
from kdmesh.endpoints import client
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("KDMESH_STORE", "off")  # or the second run would ask nothing


def says(prompt, number, body):
    """A digit that depends on all that is asked; the first or the second, of who is asked for one of two."""
    key = json.dumps([prompt, number, body.get("seed")])
    drawn = int(sha256(key.encode()).hexdigest(), 16)
    return str(1 + drawn % 3 if "/" in prompt else drawn % 10)


def judged(url):
    """Two agents answer, an endpoint says in both orders which answer is better, and a student learns the better one,
    and what one of them says of both."""
    fields = written(url)
    small = {"model": llama(8, vocabulary=None), "update": "frozen"}
    fields["agents"] |= {"a": small, "b": {**small, "seed": 1}}
    how = {"prompts": "train", "refresh": "once", "sampling": {"max_new_tokens": 3}}
    judge = {**how, "generated_by": "gpt", "template": "{{ prompt }}/{{ one.text }}/{{ two.text }}"}
    orders = {
        "consensus_of": ["first", "second"], "reads": {"shown": "shown", "turned": "turned"},
        "rule": {"best_of": {"verdict": "[0-9]", "names": {"shown": ["1", "2"], "turned": ["2", "1"]}, "least": 2}},
    }  # fmt: skip
    fields["streams"] = {
        "first": {**how, "generated_by": "a"},
        "second": {**how, "generated_by": "b"},
        "shown": {**judge, "reads": {"one": "first", "two": "second"}},
        "turned": {**judge, "reads": {"one": "second", "two": "first"}},
        "w": orders,
        "pairs": {**orders, "pairs": True},
    }
    fields["flows"].append({"from": "a", "to": "s", "objective": "kl", "stream": "pairs", "refresh": "step"})
    return fields


def debated(url):
    """An endpoint debates with an agent and the student, which learns the vote."""
    fields = written(url)
    del fields["streams"], fields["flows"]
    fields["agents"]["t"] = {"model": llama(8, vocabulary=None), "update": "frozen"}
    fields["connect"] = [
        {
            "debate": {
                "debaters": ["gpt", "t", "s"], "student": "s", "template": "{{ others }}={{ prompt }}",
                "between": "=", "rule": {"vote": {"pattern": "[0-9]", "ties": "first"}},
                "sampling": {"max_new_tokens": 3}, "refresh": "epoch", "roles": {"gpt": "0"},
            }
        }
    ]  # fmt: skip
    return fields


def seldom(fast, *slow):
    """Roles, of which the last are slow: they prove what the first do."""
    return [*fast, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


@pytest.fixture(params=seldom(["teacher", "judge"], "writer", "debater"))
def role(request, served, model):  # noqa: F811
    """A server, and the mesh of a role."""
    if request.param == "teacher":
        return model[0], taught(model[0].url)
    server = served(answer=lambda *given: says(*given) if "capital" not in given[0] else str(given[2].get("seed")))
    made = {"writer": lambda url: written(url, {"samples": 2}), "judge": judged, "debater": debated}
    return server, made[request.param](server.url)


@pytest.mark.ray
def test_on_ray_as_inline(role, tmp_path, ray_session):
    server, fields = role
    summary, folder, _ = run_once(Request(parse(fields), "inline", out=tmp_path / "runs"))
    here = sorted(json.dumps(body) for body in server.bodies)
    server.bodies.clear()
    spread = parse({**fields, "placement": "spread"})
    other, ray, _ = run_once(Request(spread, "ray", out=tmp_path / "ray"), session=ray_session)
    there = sorted(json.dumps(body) for body in server.bodies)
    assert here == there and len(set(here)) == len(here) > 4
    one, two = (load(each.root) for each in (folder, ray))
    assert one.keys() == two.keys() and all(bool((one[name] == two[name]).all()) for name in one)
    assert other["endpoints"]["gpt"]["requests"] == summary["endpoints"]["gpt"]["requests"] == len(here)


@pytest.mark.parametrize("role", seldom(["judge"], "writer", "teacher", "debater"), indirect=True)
def test_killed_and_resumed_it_sends_nothing_twice(role, tmp_path, monkeypatch, capsys):
    """SIGKILL while it is asked, a budget that lacks the one request that was under way then, and a run after all."""
    server, fields = role
    api = fields["agents"]["gpt"]["model"]["api"]
    api["concurrency"] = 1
    told, unbroken, _ = run_once(Request(parse(fields), "inline", out=tmp_path / "runs"))
    whole = len(server.bodies)
    server.bodies.clear()
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "store"))
    api["budget"] = {"requests": whole}
    (tmp_path / "mesh.yaml").write_text(json.dumps(fields), encoding="utf-8")
    command = [sys.executable, "-m", "kdmesh", "run", "mesh.yaml", "--backend", "inline", "--out", "killed"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = whole - 2
    server.before = lambda number: process.kill() if number == last else None
    assert process.wait(600) == -signal.SIGKILL
    server.before = lambda number: None
    (root,) = (tmp_path / "killed" / "m").iterdir()

    resume = ["resume", str(root), "--quiet", "--no-report"]
    assert main(resume) == 1
    assert f"the budget of gpt is spent: {whole} requests of {whole}, " in capsys.readouterr().err
    assert len(server.bodies) == whole  # to the request
    assert main([*resume, "--more", "gpt.requests=1"]) == 0, capsys.readouterr().err
    sent = [json.dumps(body) for body in server.bodies]
    assert len(sent) == whole + 1 and len(set(sent)) == whole and sent[last - 1] == sent[last]  # was under way
    spent = json.loads((root / "summary.json").read_text())["endpoints"]["gpt"]
    journal = [json.loads(line) for line in (root / "endpoints" / "gpt.jsonl").read_text().splitlines()]
    asked = Counter(line["sent"] for line in journal if "sent" in line)
    (twice,) = (one for one, count in asked.items() if count == 2)
    most = next(line["most"] for line in journal if line.get("sent") == twice)  # nobody knows what that one cost
    assert (spent["requests"], spent["tokens"]) == (whole + 1, told["endpoints"]["gpt"]["tokens"] + most)

    _, again, _ = run_once(Request(parse(fields), "inline", out=tmp_path / "runs"))
    assert len(server.bodies) == whole + 1  # the store has what the killed process was told, too
    one, two, three = (load(each) for each in (unbroken.root, root, again.root))
    assert all(bool((two[name] == one[name]).all() and (three[name] == one[name]).all()) for name in one)
    files = sorted(path.name for path in (unbroken.root / "streams").glob("*.jsonl"))
    assert [texts(root, name) for name in files] == [texts(unbroken.root, name) for name in files]


def texts(root, name):
    """What was written, and by which verdicts or votes it was chosen; but for when."""
    lines = [json.loads(line) for line in (root / "streams" / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]
