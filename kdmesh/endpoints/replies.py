"""What is asked of an endpoint, and what comes back, read and checked."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kdmesh.endpoints.settings import EndpointConfig

ROOM = 16  # tokens of a turn's frame at most, as chat templates write it
LEAST = -1e9  # a log-probability below it is no number of a server that computes, unless it is -inf


class Unsound(Exception):
    """An answer that cannot be used; its text says what is wrong with it."""


@dataclass(frozen=True)
class Ask:
    """One request: turns, or plain text, and how it is to be answered.

    ``top``: likeliest tokens whose log-probabilities are asked for at each place, 0: none, and ``least``: how many must
    be listed there, None: all of them; ``n``: answers.
    """

    turns: tuple[tuple[str, str], ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top: int = 0
    least: int | None = None

    def body(self, config: EndpointConfig) -> dict[str, Any]:
        """The request as JSON holds it."""
        chat = config.route == "chat"
        system = [] if config.system is None else [("system", config.system)]
        turns = [{"role": role, "content": text} for role, text in (*system, *self.turns)]
        told: dict[str, Any] = {"messages": turns} if chat else {"prompt": "".join(text for _, text in self.turns)}
        body = {"model": config.model, **told, "max_tokens": self.max_tokens, "temperature": self.temperature}
        body |= {"top_p": self.top_p} if self.temperature and not self.top else {}  # some servers' default is less
        body |= {"n": self.n} if self.n > 1 else {}
        body |= {"seed": self.seed} if self.seed is not None else {}
        body |= {"stop": list(self.stop)} if self.stop else {}
        if self.top:
            body |= {"logprobs": True, "top_logprobs": self.top} if chat else {"logprobs": self.top}
        return {**body, **config.extra}

    def url(self, config: EndpointConfig) -> str:
        """Where it goes."""
        return f"{config.base_url}/{config.path}"

    def read(self, config: EndpointConfig, value: Any) -> Reply:
        """What a server says to it. :class:`Unsound` where that cannot be used."""
        return read(config, self, value)

    def most(self, config: EndpointConfig) -> int:
        """Tokens that it may cost at most: a token of a prompt has a byte or more."""
        system = 0 if config.system is None else len(config.system.encode()) + ROOM
        prompt = sum(len(text.encode()) + ROOM for _, text in self.turns) + system
        return prompt + self.n * self.max_tokens


@dataclass(frozen=True)
class Score:
    """A text in tokens, whose likeliest continuations are asked for, ``top`` of them, by their numbers.

    ``whole``: after each of its tokens but the last, in one request (vLLM's `prompt_logprobs`); else after its last
    one, of a server that generates one token and lists all (llama.cpp's `n_probs`). In answers a token is named by its
    number and its text.
    """

    ids: tuple[int, ...]
    top: int
    whole: bool

    def url(self, config: EndpointConfig) -> str:
        """Where it goes: llama.cpp's own route stands beside those of OpenAI."""
        return f"{config.base_url}/completions" if self.whole else f"{config.root}/completion"

    def body(self, config: EndpointConfig) -> dict[str, Any]:
        """The request as JSON holds it."""
        common = {"model": config.model, "prompt": list(self.ids), "temperature": 1.0}
        if self.whole:
            return {**common, "max_tokens": 1, "prompt_logprobs": self.top, **config.extra}
        return {**common, "n_predict": 1, "n_probs": self.top, "cache_prompt": True, **config.extra}

    def most(self, config: EndpointConfig) -> int:
        """Tokens that it costs."""
        return len(self.ids) + 1

    def read(self, config: EndpointConfig, value: Any) -> Reply:
        """What a server says to it. :class:`Unsound` where that cannot be used."""
        if not isinstance(value, dict):
            raise Unsound("its answer is no object")
        places = _of_prompt(value, len(self.ids)) if self.whole else _of_last(value)
        tokens = []
        for place in places:
            best = sorted(place, key=lambda pair: -pair[1])[: self.top]
            if len(best) < self.top:
                raise Unsound(f"it lists {len(best)} tokens at a place, and {self.top} were asked for")
            tokens.append(Token("", 0.0, tuple(best)))
        model, build = str(value.get("model") or ""), str(value.get("system_fingerprint") or "")
        return Reply((Choice("", "length", tuple(tokens)),), len(self.ids) + 1, model, build)


def _of_last(value: dict[str, Any]) -> list[list[tuple[str, float]]]:
    """The tokens that llama.cpp lists after a text."""
    told = value.get("completion_probabilities")
    first = told[0] if isinstance(told, list) and told and isinstance(told[0], dict) else {}
    listed = first.get("top_logprobs")
    if not isinstance(listed, list):
        raise Unsound("it gives no log-probabilities (`n_probs`), which were asked for")
    return [[_named(one.get("id"), one.get("token"), one.get("logprob")) for one in listed if isinstance(one, dict)]]


def _of_prompt(value: dict[str, Any], count: int) -> list[list[tuple[str, float]]]:
    """The tokens that vLLM lists at each place of a text but the first."""
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    told = first.get("prompt_logprobs")
    if not isinstance(told, list) or len(told) != count or not all(isinstance(one, dict) for one in told[1:]):
        raise Unsound(f"it gives no log-probabilities of the {count} tokens of the text (`prompt_logprobs`)")
    return [
        [_named(number, one.get("decoded_token"), one.get("logprob")) for number, one in _objects(place)]
        for place in told[1:]
    ]


def _named(number: Any, text: Any, value: Any) -> tuple[str, float]:
    if not re.fullmatch("[0-9]{1,18}", str(number)) or not _is_log(value):
        raise Unsound("it lists a token without its number, or with no log-probability")
    return f"{number} {text}", float(value)


Question = Ask | Score


def digest(config: EndpointConfig, ask: Question) -> str:
    """What a request is found by: the sha256 of where it goes and of all that it says."""
    told = json.dumps([ask.url(config), ask.body(config)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()


class Token(NamedTuple):
    """A token of an answer: its text, its log-probability, and the likeliest ones at its place with theirs."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]


class Choice(NamedTuple):
    """One answer. ``finish``: why it ended, `stop` or `length`; ``reasoning``: what stood apart from it."""

    text: str
    finish: str
    tokens: tuple[Token, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True)
class Reply:
    """What came back. ``tokens``: of prompt and answers, as the server counts; None where it does not tell."""

    choices: tuple[Choice, ...]
    tokens: int | None
    model: str = ""
    build: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "choices": [
                [one.text, one.finish, one.reasoning, [[t.text, t.logprob, t.top] for t in one.tokens]]
                for one in self.choices
            ],
            "tokens": self.tokens,
            "model": self.model,
            "build": self.build,
        }

    @classmethod
    def restore(cls, record: dict[str, Any]) -> Reply:
        """Of :meth:`record`."""
        choices = [
            Choice(
                text, finish, tuple(Token(t, float(p), tuple((a, float(b)) for a, b in top)) for t, p, top in own), why
            )
            for text, finish, why, own in record["choices"]
        ]
        return cls(tuple(choices), record["tokens"], record["model"], record["build"])


def read(config: EndpointConfig, ask: Ask, value: Any) -> Reply:
    """What a server said to a request. :class:`Unsound` where it cannot be used."""
    if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
        raise Unsound("it gives no list of `choices`")
    told = value["choices"]
    if len(told) != ask.n:
        raise Unsound(f"it gives {len(told)} of {ask.n} answers that were asked for")
    order = [one.get("index") if isinstance(one, dict) else None for one in told]
    if sorted(map(str, order)) == sorted(map(str, range(ask.n))):  # permuted ones go back to their places
        told = sorted(told, key=lambda one: int(one["index"]))
    elif any(one is not None for one in order):
        raise Unsound(f"it numbers its answers {order}, which are not 0 to {ask.n - 1}")
    choices = tuple(_choice(config, ask, one) for one in told)
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    tokens = usage.get("total_tokens")
    if not _is_count(tokens):
        parts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        tokens = sum(parts) if all(map(_is_count, parts)) else None  # type: ignore[arg-type]  # they are counts
    return Reply(choices, tokens, str(value.get("model") or ""), str(value.get("system_fingerprint") or ""))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _choice(config: EndpointConfig, ask: Ask, one: Any) -> Choice:
    if not isinstance(one, dict):
        raise Unsound("one of its answers is no object")
    said = one.get("message") if config.route == "chat" else one
    text = said.get("content" if config.route == "chat" else "text") if isinstance(said, dict) else None
    if text is None and isinstance(said, dict):
        text = ""  # nothing but reasoning, or an answer that ends at once
    if not isinstance(text, str):
        raise Unsound("one of its answers has no text")
    assert isinstance(said, dict)
    reasoning = said.get("reasoning_content") or said.get("reasoning") or ""
    tokens = _tokens(config, ask, one.get("logprobs")) if ask.top else ()
    finish = str(one.get("finish_reason") or "")
    return Choice(_whole(text), finish, tokens, _whole(reasoning) if isinstance(reasoning, str) else "")


def _whole(text: str) -> str:
    """Without halves of characters (lone surrogates), which JSON can hold and no tokenizer or file does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _tokens(config: EndpointConfig, ask: Ask, told: Any) -> tuple[Token, ...]:
    """The log-probabilities of an answer, in either of the forms that servers give them."""
    if not isinstance(told, dict):
        raise Unsound("it gives no log-probabilities, which were asked for")
    if isinstance(told.get("content"), list):
        found = [
            (one.get("token"), one.get("logprob"), _pairs(one.get("top_logprobs")))
            for _, one in _objects(dict(enumerate(told["content"])))
        ]
    elif isinstance(told.get("tokens"), list):
        found = list(
            zip(
                told["tokens"],
                _list(told.get("token_logprobs")),
                [list(one.items()) for _, one in _objects(dict(enumerate(_list(told.get("top_logprobs")))))],
                strict=False,
            )
        )
    else:
        raise Unsound("it gives log-probabilities in no form that is known")
    tokens = []
    for text, value, top in found:
        if not isinstance(text, str) or not _is_log(value) or not all(_is_log(other) for _, other in top):
            raise Unsound("one of its log-probabilities is no number of 0 or below")
        tokens.append(Token(text, float(value), tuple((str(name), float(other)) for name, other in top)))
    if not tokens or not all(one.top for one in tokens):
        raise Unsound(f"it gives no list of the {ask.top} likeliest tokens at a place, which was asked for")
    listed = min(len(one.top) for one in tokens)
    if listed < (ask.top if ask.least is None else ask.least):
        raise Unsound(f"it lists {listed} tokens at a place, and {ask.top} were asked for")
    return tuple(tokens)


def _pairs(told: Any) -> list[tuple[Any, Any]]:
    return [(one.get("token"), one.get("logprob")) for one in _list(told) if isinstance(one, dict)]


def _list(told: Any) -> list[Any]:
    """A list; of anything else an empty one."""
    return told if isinstance(told, list) else []


def _objects(told: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """The objects that stand under names; in place of anything else one that says nothing."""
    return [(name, one if isinstance(one, dict) else {}) for name, one in told.items()]


def _is_log(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return LEAST <= value <= 1e-3 or value == -math.inf
