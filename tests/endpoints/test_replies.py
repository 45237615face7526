"""Answers of servers, in every form and out of it: each is read, or refused in words, and none ends in a traceback."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from kdmesh.endpoints.replies import Ask, Question, Reply, Score, Unsound
from kdmesh.endpoints.settings import EndpointConfig

LISTED = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -3}]
FORMS: dict[str, tuple[str, Question, dict[str, Any]]] = {
    "chat": (
        "chat",
        Ask((("user", "hello"),), 4, n=2, top=2),
        {
            "choices": [
                {
                    "index": number, "finish_reason": "stop",
                    "message": {"content": "a", "reasoning_content": "well"},
                    "logprobs": {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": LISTED}]},
                }
                for number in (1, 0)
            ],
            "usage": {"total_tokens": 3}, "model": "tiny", "system_fingerprint": "b1",
        },
    ),
    "plain text": (
        "completions",
        Ask((("user", "hello"),), 4, top=2),
        {
            "choices": [
                {
                    "text": "a", "finish_reason": "length",
                    "logprobs": {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [{"a": -0.1, "b": -3}]},
                }
            ],
            "usage": {"prompt_tokens": 2, "completion_tokens": 1},
        },
    ),
    "places of llama.cpp": (
        "completions",
        Score((5, 6), 2, False),
        {"completion_probabilities": [{"top_logprobs": [{"id": n, **one} for n, one in enumerate(LISTED)]}]},
    ),
    "places of vLLM": (
        "completions",
        Score((5, 6), 2, True),
        {
            "choices": [
                {"prompt_logprobs": [None, {"5": {"decoded_token": "a", "logprob": -0.1},
                                            "6": {"decoded_token": "b", "logprob": -3}}]}
            ]
        },
    ),
}  # fmt: skip
ODD = [None, True, -1, 0.5, 10**400, -(10**400), math.nan, math.inf, -math.inf, "x", "\u00b2", [], [None], [[3]], {},
       {"x": None}]  # fmt: skip


def config(route: str) -> EndpointConfig:
    return EndpointConfig(base_url="http://127.0.0.1:1/v1", model="tiny", route=route)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in an answer."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in parts:
        yield from places(one, (*path, name))


def others(sound: dict[str, Any]) -> Iterator[Any]:
    """The answer with one thing in it replaced by an odd one, or left out."""
    yield from ODD
    for path in places(sound):
        for odd in (*ODD, KeyError) if path else ():
            made = copy.deepcopy(sound)
            inner = made
            for name in path[:-1]:
                inner = inner[name]
            if odd is KeyError:
                del inner[path[-1]]
            else:
                inner[path[-1]] = odd
            yield made


@pytest.mark.parametrize("form", FORMS)
def test_odd_answers_are_read_or_refused_in_words(form: str) -> None:
    route, ask, sound = FORMS[form]
    whole, refused = ask.read(config(route), sound), 0
    assert len(whole.choices) == len(sound.get("choices", [0])) and all(one.tokens for one in whole.choices)
    for odd in others(sound):
        try:
            reply = ask.read(config(route), odd)
        except Unsound as error:
            refused += 1
            assert str(error)
            continue
        again = Reply.restore(json.loads(json.dumps(reply.record())))
        assert again == reply and len(reply.choices) == len(whole.choices)
        assert all(
            isinstance(token.logprob, float) and token.logprob <= 1e-3 for one in reply.choices for token in one.tokens
        )
    assert refused > 50


@pytest.mark.parametrize(
    ("form", "path", "odd", "said"),
    [
        ("chat", ("choices",), None, "it gives no list of `choices`"),
        ("chat", ("choices", 1, "index"), 1, r"it numbers its answers \[1, 1\], which are not 0 to 1"),
        ("chat", ("choices", 0), None, "it numbers its answers"),
        ("chat", ("choices", 0, "message"), "a", "one of its answers has no text"),
        ("chat", ("choices", 0, "logprobs"), None, "it gives no log-probabilities, which were asked for"),
        ("chat", ("choices", 0, "logprobs"), {"a": 1}, "it gives log-probabilities in no form that is known"),
        (
            "chat",
            ("choices", 0, "logprobs", "content", 0),
            None,
            "one of its log-probabilities is no number of 0 or below",
        ),
        ("chat", ("choices", 0, "logprobs", "content", 0, "logprob"), 0.5, "is no number of 0 or below"),
        ("chat", ("choices", 0, "logprobs", "content", 0, "top_logprobs"), 3, "no list of the 2 likeliest tokens"),
        ("chat", ("choices", 0, "logprobs", "content", 0, "top_logprobs"), LISTED[:1], "it lists 1 tokens at a place"),
        ("plain text", ("choices", 0, "logprobs", "top_logprobs"), [None], "no list of the 2 likeliest tokens"),
        ("plain text", ("choices", 0), None, "one of its answers is no object"),
        ("places of llama.cpp", ("completion_probabilities",), 3, r"no log-probabilities \(`n_probs`\)"),
        (
            "places of llama.cpp",
            ("completion_probabilities", 0, "top_logprobs", 0, "id"),
            "\u00b2",
            "without its number",
        ),
        ("places of vLLM", ("choices", 0, "prompt_logprobs"), [None], "of the 2 tokens of the text"),
        ("places of vLLM", ("choices", 0, "prompt_logprobs", 1, "5"), None, "without its number, or with no log-prob"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(form: str, path: tuple[Any, ...], odd: Any, said: str) -> None:
    route, ask, sound = FORMS[form]
    made = copy.deepcopy(sound)
    inner: Any = made
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = odd
    with pytest.raises(Unsound, match=said):
        ask.read(config(route), made)


def test_half_a_character_is_none() -> None:
    route, ask, sound = FORMS["chat"]
    made = copy.deepcopy(sound)
    made["choices"][1]["message"] = {"content": "a\ud83d", "reasoning": "\ude00\N{GRINNING FACE}"}
    first = ask.read(config(route), json.loads(json.dumps(made))).choices[0]
    assert (first.text, first.reasoning) == ("a\ufffd", "\ufffd\N{GRINNING FACE}")
