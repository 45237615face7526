"""What is served behind an endpoint, and what it can: a known text is sent, and what comes back counted and summed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from kdmesh.endpoints.client import Client
from kdmesh.endpoints.journal import Journal
from kdmesh.endpoints.replies import Ask, Score
from kdmesh.errors import MeshError, RunFailed, RunPaused, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.endpoints.replies import Token
    from kdmesh.endpoints.settings import EndpointConfig

KNOWN = (("user", "The capital of France is"),)
SHORT, LONG = 4, 16  # tokens that are asked for
HOT = 2.0  # a temperature at which equal answers come by no chance
DRAWS = 3  # answers that are compared
ODD = "\N{REPLACEMENT CHARACTER}"  # of tokens that are parts of a character
SLACK = 1e-3  # by which probabilities may sum to more than 1


@dataclass(frozen=True)
class Needs:
    """What a mesh asks of an endpoint.

    ``top``: likeliest tokens; ``n``: answers of one request; ``drawn``: the temperature at which texts are drawn, 0:
    the likeliest tokens are taken, None: no text of it is read; ``scored``: likeliest tokens at places of given texts,
    and ``whole``: of all places in one request, see :class:`~kdmesh.endpoints.replies.Score`.
    """

    top: int = 0
    n: int = 1
    drawn: float | None = None
    scored: int = 0
    whole: bool = False


class Reader(NamedTuple):
    """How an agent reads: a known text in its tokens, and what text a token is."""

    known: tuple[int, ...]
    word: Callable[[int], str]
    vocabulary: int


@dataclass(frozen=True)
class Served:
    """What a probe found: the model's name in answers, the server's build, and what was counted and summed.

    ``least``, ``most``: the probability that the listed tokens of a place have together; ``requests``, ``tokens``: what
    the probe cost; ``look``: its name, by which that is counted once; ``sign``: what was looked for, and where.
    """

    model: str
    build: str = ""
    about: str = ""
    listed: int = 0
    least: float = 0.0
    most: float = 0.0
    counts: bool = True
    requests: int = 0
    tokens: int = 0
    look: str = ""
    sign: str = ""

    @property
    def identity(self) -> dict[str, str]:
        """What tells this model from another."""
        return {"model": self.model, "build": self.build, "about": self.about}

    def said(self, name: str) -> str:
        """What was found, in a line."""
        build = f" of {self.build}" if self.build else ""
        top = (
            f"; {self.listed} tokens are listed at a place, which hold {self.least:.3f} to {self.most:.3f}"
            if self.listed
            else ""
        )
        usage = "" if self.counts else "; it does not count tokens, of which each request counts as many as it may have"
        cost = f" ({self.requests} requests, {self.tokens} tokens)" if self.requests else " (known from before)"
        return f"endpoint {name}: {self.model}{build} answers{top}{usage}{cost}"

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def identity(client: Client) -> dict[str, str]:
    """What a server says of itself without being asked to answer: its build, and what it serves.

    MeshError where it lists its models, and not this one.
    """
    config, build, about = client.config, "", ""
    listed = client.get("models")
    data = listed.get("data") if isinstance(listed, dict) else None
    models = {str(one.get("id")): one for one in data if isinstance(one, dict)} if isinstance(data, list) else {}
    props = client.get("props", root=True)
    if isinstance(props, dict) and props.get("build_info"):
        build = f"llama.cpp {props['build_info']}"
        about = PurePosixPath(str(props.get("model_path") or "")).name
    elif isinstance(version := client.get("version", root=True), dict) and version.get("version"):
        build = f"vLLM {version['version']}"
    if config.model in models:
        own = models[config.model]
        told = {**(own["meta"] if isinstance(own.get("meta"), dict) else {}), **_origin(own, config.model)}
        about = " ".join([about, *(f"{key}={value}" for key, value in sorted(told.items()))]).strip()
    elif models and not build.startswith("llama.cpp"):  # which answers by whatever name it is asked
        raise MeshError(
            f"{config.base_url} has no model {config.model!r}",
            where=f"{client.where}.model",
            instead=nearest(config.model, models, "models"),
        )
    return {"build": build, "about": about}


def _origin(listed: dict[str, Any], name: str) -> dict[str, str]:
    """Where a model comes from that vLLM serves under a name: its folder, and that of an adapter's base."""
    told = {key: listed.get(key) for key in ("root", "parent")}
    return {key: value for key, value in told.items() if isinstance(value, str) and value != name}


def probe(config: EndpointConfig, needs: Needs, whose: str, reader: Reader | None = None) -> Served:
    """Ask an endpoint what the mesh will ask of it. MeshError, which says what it lacks, where it cannot be used.

    ``reader``: where texts are scored, how its agent reads them.
    """
    journal = Journal(None, config.budget, whose)
    client = Client(config, journal, whose)
    try:
        client.refuse_keyless()
        found = _asked(client, needs)
        if needs.scored and reader is not None:
            found = _scores(client, needs, reader, found)
    except RunPaused as error:
        raise MeshError(
            f"the budget of {whose} is less than what looking at its endpoint takes: {journal.told()}",
            where=error.where, instead="a larger one",
        ) from None  # fmt: skip
    except RunFailed as error:
        raise MeshError(error.what, where=error.where, instead=error.instead) from None
    finally:
        client.close()
    return replace(found, requests=journal.requests, tokens=journal.tokens, look=uuid4().hex)


def _asked(client: Client, needs: Needs) -> Served:
    told, where = identity(client), client.where
    first = Ask(KNOWN, SHORT, temperature=1.0, n=needs.n, seed=1, top=needs.top, least=1)
    reply = client.post(first, lambda: _lacks(needs))
    found = Served(reply.model or client.config.model, told["build"] or reply.build, told["about"])
    if reply.tokens is None and client.config.budget.tokens is not None:
        what = "the server does not count tokens (`usage`), so that a budget of them cannot be kept"
        raise MeshError(what, where=f"{where}.budget.tokens", instead="a budget of requests")
    found = replace(found, counts=reply.tokens is not None)
    if needs.top:
        places = [token for choice in reply.choices for token in choice.tokens]
        if max(len(choice.tokens) for choice in reply.choices) > SHORT:
            raise MeshError(
                "the server ignores `max_tokens`", where=where, instead="one that ends where it is asked to"
            )
        least = min(len(token.top) for token in places)
        if least < needs.top:
            what = f"the server lists {least} tokens at a place, and {needs.top} were asked for"
            raise MeshError(what, where=f"{where}.top", instead=f"top: {least}, or a server that lists more")
        found = _summed(found, places, least, where)
    if needs.drawn is not None:
        _draws(client, needs.drawn)
    return found


def _summed(found: Served, places: Sequence[Token], least: int, where: str) -> Served:
    """With what the tokens that are listed at a place hold together. MeshError where that is more than all."""
    sums = [sum(math.exp(value) for _, value in token.top) for token in places]
    if max(sums) > 1 + SLACK:
        what = f"the probabilities that the server lists at a place sum to {max(sums):.3f}"
        raise MeshError(what, where=where, instead="a server whose log-probabilities are of one distribution")
    return replace(found, listed=least, least=min(sums), most=max(sums))


def _scores(client: Client, needs: Needs, reader: Reader, found: Served) -> Served:
    """Have a known text scored: as many tokens as asked for, each the same text here as there."""
    reply = client.post(Score(reader.known, needs.scored, needs.whole), lambda: ", where a given text was to be scored")
    places = reply.choices[0].tokens
    for name, _ in (pair for place in places for pair in place.top):
        number, _, text = name.partition(" ")
        here = reader.word(int(number)) if int(number) < reader.vocabulary else ""
        if here != text and ODD not in here + text:
            what = f"token {number} is {text!r} at the endpoint, and {here!r} for {client.whose}"
            instead = "tokenizer: that of the model which is served"
            raise MeshError(what, where=f"{client.where}.tokenizer", instead=instead)
    return _summed(found, places, needs.scored, client.where)


def _lacks(needs: Needs) -> str:
    asked = [name for name, is_asked in (("logprobs, top_logprobs", needs.top), ("n", needs.n > 1)) if is_asked]
    return f", where {' and '.join(asked)} was asked for" if asked else ""


def _draws(client: Client, drawn: float) -> None:
    """Whether `temperature` has an effect: of equal answers where they should differ, or different ones at 0."""
    hot = 0.0 if drawn == 0 else max(HOT, drawn)
    asks = [Ask(KNOWN, LONG, temperature=hot, seed=number + 1) for number in range(2 if drawn == 0 else DRAWS)]
    try:
        texts = [client.post(ask).choices[0].text for ask in asks]
    except MeshError as error:
        if isinstance(error, RunFailed) or hot in (0.0, drawn):
            raise
        texts = [client.post(replace(ask, temperature=drawn)).choices[0].text for ask in asks]
        if len(set(texts)) == 1:
            return  # what it takes may be too cold to tell
    if (len(set(texts)) == 1) != (drawn == 0):
        how = (
            "two answers at temperature 0 differ" if drawn == 0 else f"{DRAWS} answers at temperature {hot:g} are alike"
        )
        what = f"the server ignores `temperature`: {how}"
        instead = "sampling: {greedy: true}, if it always takes the likeliest token, or another server"
        raise MeshError(what, where=client.where, instead="another server" if drawn == 0 else instead)
