"""One endpoint over HTTP: what goes wrong there, what is repeated, and what it may cost."""

from __future__ import annotations

import threading

import pytest
from pydantic import ValidationError

from kdmesh.endpoints.asking import Asker
from kdmesh.endpoints.client import Client, _seconds
from kdmesh.endpoints.journal import Journal
from kdmesh.endpoints.replies import Ask, Reply, digest
from kdmesh.endpoints.served import Needs, Served, probe
from kdmesh.endpoints.settings import BudgetConfig, EndpointConfig
from kdmesh.errors import MeshError, RunFailed, RunPaused
from kdmesh.spec.explain import explain

HELLO = Ask((("user", "hello there"),), 4)


def client(server, budget=None, path=None, waits=None, **settings):
    config = EndpointConfig(base_url=server.url, model="tiny", budget=budget or {}, **settings)
    journal = Journal(path, config.budget, "gpt")
    return Client(config, journal, "gpt", (waits if waits is not None else []).append)


def test_answers_in_both_routes(served):
    server = served(answer=lambda prompt, number, body: f"{prompt}!")
    for route in ("chat", "completions"):
        reply = client(server, route=route).post(HELLO)
        assert reply.choices[0].text == "hello there!" and reply.model == "tiny" and reply.tokens == 4
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "hello there"}]
    assert server.bodies[1]["prompt"] == "hello there"


@pytest.mark.parametrize("fault", ["broken", "drop", "fewer", 429, 500, 503])
def test_is_asked_again_with_backoff(served, fault):
    server, waits = served(), []
    server.faults = [fault, fault]
    asked = client(server, waits=waits)
    reply = asked.post(Ask(HELLO.turns, 4, n=2))
    assert len(reply.choices) == 2 and asked.tally.requests == asked.journal.requests == 3 and asked.tally.repeated == 2
    assert 0.25 <= waits[0] <= 0.5 < waits[1] * 2 <= 2.0  # twice as long, with jitter


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("broken", "its answer is no JSON, after 2 tries, for line 7"),
        ("drop", "it broke off its answer"),
        ("fewer", "it gives 1 of 2 answers that were asked for"),
        ("nested", "its answer is no JSON, after 2 tries, for line 7"),
        (429, "it answers with status 429"),
        (503, "it answers with status 503"),
    ],
)
def test_says_what_went_wrong_and_of_what(served, fault, said):
    server = served()
    server.faults = [fault] * 2
    with pytest.raises(RunFailed) as error:
        client(server, retries=1).post(Ask(HELLO.turns, 4, n=2), lambda: ", for line 7")
    assert said in error.value.what and server.url in error.value.what and error.value.where == "agents.gpt.model.api"


def test_a_server_that_is_down_or_slow(served):
    server = served()
    server.faults = ["slow"]
    with pytest.raises(RunFailed, match=r"has not answered for 0.1 s, after one try"):
        client(server, retries=0, timeout=0.1).post(HELLO)
    server.close()
    waits = []
    asked = client(server, retries=2, waits=waits)
    with pytest.raises(RunFailed, match="nothing answers there"):
        asked.post(HELLO)
    assert len(waits) == 2 and asked.journal.tokens == 0  # what was never sent has cost none


def test_waits_as_long_as_the_server_says(served):
    server, waits = served(), []
    server.faults, server.headers = [429], {"Retry-After": "7"}
    client(server, waits=waits).post(HELLO)
    assert waits == [7.0]
    server.faults = [429]
    with pytest.raises(RunFailed, match="asked again only after 7 s"):
        client(server, waits=waits, longest_wait=5).post(HELLO)
    assert _seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0 and _seconds("soon") is None and _seconds(None) is None


def test_permuted_answers_go_back_to_their_places(served):
    server = served(answer=lambda prompt, number, body: f"answer {number}")
    server.faults = ["permuted"]
    reply = client(server).post(Ask(HELLO.turns, 4, n=3))
    assert [one.text for one in reply.choices] == ["answer 0", "answer 1", "answer 2"]
    assert Reply.restore(reply.record()) == reply


def test_a_budget_of_requests_holds_to_the_request_and_is_kept(served, tmp_path):
    server = served()
    path = tmp_path / "run" / "gpt.jsonl"
    asked = client(server, {"requests": 3}, path)
    for number in range(2):
        asked.post(Ask((("user", f"hello {number}"),), 4))
    server.faults = [500]
    with pytest.raises(RunPaused, match="the budget of gpt is spent: 3 requests of 3") as error:
        asked.post(HELLO)  # its first try is the third request
    assert len(server.bodies) == 3 and "--more gpt.requests=3" in error.value.instead
    again = Journal(path, BudgetConfig(requests=3), "gpt")
    assert again.requests == 3 and len(again.replies) == 2
    with pytest.raises(RunPaused):
        again.sent("x", 1)
    again.more(1, 0)
    again.sent("x", 1)
    with pytest.raises(RunPaused, match="4 requests of 4"):
        again.sent("y", 1)


def test_a_budget_of_tokens_counts_before_it_sends(served, tmp_path):
    server = served()
    most = HELLO.most(EndpointConfig(base_url=server.url, model="tiny"))
    asked = client(server, {"tokens": most + 3}, tmp_path / "gpt.jsonl")
    asked.post(HELLO)
    assert asked.journal.tokens == 3 < most  # as the server counts: two words, and one back
    asked.post(Ask((("user", "hello three"),), 4))
    with pytest.raises(RunPaused, match=f"may take {most:,}"):
        asked.post(Ask((("user", "hello again"),), 4))
    assert len(server.bodies) == 2


def test_a_journal_survives_a_torn_line_and_several_writers(tmp_path):
    path = tmp_path / "gpt.jsonl"
    one, two = (Journal(path, BudgetConfig(requests=4), "gpt") for _ in range(2))
    one.sent("a", 10)
    with path.open("ab") as file:
        file.write(b'{"got": "a", "mo')
    two.sent("b", 10)
    one.got("a", 10, 4, {"x": 1})
    assert two.requests == one.requests == 2
    three = Journal(path, BudgetConfig(requests=4), "gpt")
    assert (three.requests, three.tokens, three.replies) == (2, 14, {"a": {"x": 1}})
    three.serves({"model": "m"})
    with path.open("ab") as file:
        file.write(b'{"before": [2, 6], "look": "a look of an earlier version"}\n')
    three.before(Served("m", requests=1, tokens=5, look="a", sign="s").record())
    three.before(Served("m", look="a", sign="s").record())  # found again, and counted once
    assert (three.requests, three.tokens) == (5, 25) and three.looks["s"]["model"] == "m"
    with pytest.raises(RunFailed, match="serves another model than when this run began"):
        Journal(path, BudgetConfig(), "gpt").serves({"model": "n"})


def test_many_at_a_time_and_no_more(served):
    server, meet = served(), threading.Barrier(3)
    server.before = lambda number: meet.wait(300)  # answers only once three are there
    asker = Asker(client(server, concurrency=3), Served("tiny", "vLLM b1"), None)
    asks = [(Ask((("user", f"hello {number}"),), 4), str) for number in range(6)]
    replies = asker([*asks, asks[0]])
    assert len(server.bodies) == 6 and server.most_under_way == 3 and replies[0] == replies[-1]
    asker(asks)
    assert len(server.bodies) == 6


def test_what_came_is_kept_where_one_fails(served):
    kept = {}

    class Memory:
        def find(self, digests):
            return {one: kept[one] for one in digests if one in kept}

        def keep(self, replies):
            kept.update(replies)

    server = served()
    asker = Asker(client(server, concurrency=1, retries=0), Served("tiny"), Memory())
    server.faults = [None, None, 500]
    asks = [(Ask((("user", f"hello {number}"),), 4), str) for number in range(4)]
    with pytest.raises(RunFailed, match="status 500"):
        asker(asks)
    assert len(kept) == 2
    asker(asks)
    assert len(server.bodies) == 5 and len(kept) == 4  # two more, and nothing that had come again
    assert digest(asker.client.config, asks[0][0]) in kept


def test_a_model_that_changes_while_it_is_asked(served):
    server = served()
    asker = Asker(client(server), Served("tiny", "vLLM b1"), None)
    server.faults = ["model"]
    with pytest.raises(RunFailed, match="serves another model than before: it was tiny, and is other"):
        asker([(HELLO, str)])
    server.build = "b2"
    with pytest.raises(RunFailed, match="it was vLLM b1, and is vLLM b2"):
        Asker(client(server), Served("tiny", "vLLM b1"), None)([(HELLO, str)])


def test_another_checkpoint_behind_one_name_is_another_model(served):
    """Of which the version of the server and the name say nothing; what has no meaning as a name is left out."""
    server, found = served(), set()
    for listed in ({"root": "/models/a"}, {"root": "/models/b"}, {"root": "/models/a", "parent": "base"}, {"meta": 1}):
        server.listed = listed
        found.add(look(server, Needs()).about)
    assert found == {"root=/models/a", "root=/models/b", "parent=base root=/models/a", ""}
    server.listed = {"root": "/models/b"}
    with pytest.raises(RunFailed, match="it was root=/models/a, and is root=/models/b"):
        Asker(client(server), Served("tiny", "vLLM b1", "root=/models/a"), None)([(HELLO, str)])


def test_keys_come_from_the_environment_and_are_told_nobody(served, monkeypatch):
    server = served()
    with pytest.raises(MeshError, match="the environment has no A_KEY"):
        client(server, key_env="A_KEY").post(HELLO)
    monkeypatch.setenv("A_KEY", "sk-secret")
    client(server, key_env="A_KEY").post(HELLO)
    assert server.keys == ["Bearer sk-secret"]
    server.faults = [400, 401, 500]
    for said in (
        r"status 400 .*you sent Bearer \[key\]",
        "wants a key .status 401.: .A_KEY holds another",
        "status 500",
    ):
        with pytest.raises(MeshError, match=said) as error:
            client(server, key_env="A_KEY", retries=0).post(HELLO)
        assert "secret" not in str(error.value)
    monkeypatch.setenv("A_KEY", "sk\nsecret")
    with pytest.raises(MeshError, match="holds what no header can") as error:
        client(server, key_env="A_KEY").post(HELLO)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_url": "http://example.com/v1"}, "everybody between could read"),
        ({"base_url": "https://user:pass@example.com/v1"}, "has a user"),
        ({"base_url": "example.com"}, "no URL"),
        ({"key_env": "sk-12345"}, "no name of an environment"),
        ({"key_env": "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6"}, "no name of an environment"),
        ({"key_env": ["sk-12345"]}, "this is no text"),
        ({"base_url": {"https": "//user:pass@example.com/v1"}}, "this is no text"),
        ({"extra": {"n": 3, "more": "sk-12345"}}, "leave 'n' out"),
        ({"extra": {"Api-Key": "sk-12345"}}, "'Api-Key' looks like a key"),
        ({"extra": {"more": [{"password": "sk-12345"}]}}, "'password' looks like a key"),
        ({"extra": "sk-12345"}, "no fields by name"),
        ({"system": "Be brief.", "route": "completions"}, "system"),
    ],
)
def test_settings_that_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said) as error:
        EndpointConfig(**{"base_url": "http://127.0.0.1:1/v1", "model": "m", **settings})
    told = explain(error.value, EndpointConfig, where="api", data={"model": "m", **settings})
    assert not any(secret in str(told) for secret in ("sk-12345", "a1b2c3d4", "user:pass"))


def test_another_machine_only_in_the_clear_where_that_is_asked_for():
    assert not EndpointConfig(base_url="http://example.com/v1", model="m", insecure=True).here
    assert EndpointConfig(base_url="http://localhost:1/v1/", model="m").base_url.endswith("/v1")


def look(server, needs, **settings):
    return probe(EndpointConfig(base_url=server.url, model="tiny", retries=0, **settings), needs, "gpt")


def test_a_probe_counts_and_sums(served):
    found = look(served(), Needs(top=3, n=2))
    assert (found.model, found.build, found.listed, found.requests) == ("tiny", "vLLM b1", 3, 1)
    assert found.least == found.most == pytest.approx(0.5531, abs=1e-4)  # e^-1 + e^-2 + e^-3
    assert "3 tokens are listed at a place, which hold 0.553 to 0.553 (1 requests" in found.said("gpt")


@pytest.mark.parametrize(
    ("ignored", "needs", "said"),
    [
        ("logprobs", Needs(top=3), "gives no log-probabilities.*, where logprobs, top_logprobs was asked for"),
        ("top_logprobs", Needs(top=3), "lists 1 tokens at a place, and 3 were asked for"),
        ("n", Needs(n=2), "gives 1 of 2 answers.*where n was asked for"),
        ("temperature", Needs(drawn=1.0), "ignores `temperature`: 3 answers at temperature 2 are alike"),
        ("temperature", Needs(drawn=0.0), "ignores `temperature`: two answers at temperature 0 differ"),
    ],
)
def test_a_server_that_ignores_what_is_asked(served, ignored, needs, said):
    hot = needs.drawn == 0.0  # one that ignores it may always draw, or never
    server = served(
        answer=lambda prompt, number, body: str(body.get("seed")) if hot or body.get("temperature") else "a"
    )
    server.ignores = {ignored}
    with pytest.raises(MeshError, match=said):
        look(server, needs)


def test_a_server_that_draws_is_taken(served):
    server = served(answer=lambda prompt, number, body: str(body["seed"]) if body["temperature"] else "a")
    assert look(server, Needs(drawn=1.0)).requests == 4 and look(server, Needs(drawn=0.0)).requests == 3


def test_probes_that_cannot_be(served):
    server = served(tops=lambda prompt: {"a": -0.1, "b": -0.1, "c": -0.2})
    with pytest.raises(MeshError, match=r"sum to 2\.628"):
        look(server, Needs(top=3))
    server.usage = False
    with pytest.raises(MeshError, match="does not count tokens"):
        look(server, Needs(), budget={"tokens": 1000})
    with pytest.raises(MeshError, match="less than what looking at its endpoint takes: 1 requests of 1"):
        look(server, Needs(drawn=1.0), budget={"requests": 1})
    server.model = "large"
    with pytest.raises(MeshError, match="has no model 'tiny'"):
        look(server, Needs())
