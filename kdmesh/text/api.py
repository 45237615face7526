"""A model behind an endpoint as an agent's module: it has no weights, and asks for what it says.

A labeller's samples are its texts as bytes, so that what is sent is what stands in the data, character by character.
"""

from __future__ import annotations

import math
import re
from functools import cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.endpoints.replies import Ask, Score
from kdmesh.endpoints.served import Needs
from kdmesh.errors import MeshError, RunFailed
from kdmesh.signals.sparse import TopKLogits
from kdmesh.streams.texts import Sample
from kdmesh.text import tokenizers
from kdmesh.text.api_settings import PROMPT, ApiConfig
from kdmesh.text.encoder import Encoder
from kdmesh.text.heads import CAUSAL, SINGLE, head_of, problem_of
from kdmesh.text.settings import BpeConfig, TokenizerConfig
from kdmesh.text.views import PromptView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kdmesh.endpoints.asking import Asker
    from kdmesh.endpoints.client import About
    from kdmesh.endpoints.replies import Question, Reply, Token
    from kdmesh.spec import TextSpec
    from kdmesh.streams.tokens import Encoded, Tokens

BYTES = 260  # tokens of a tokenizer that writes every byte as one, and four special ones
LONGEST = 2**20  # bytes of a text
ANSWER = 16  # tokens of an answer that is read as a label
DRAWS = 5
LEAST = 1e-12  # probability of all tokens that are not listed, at least
OFF = 0.5  # of the probability on no label, above which that is told
LABELLER = ("prompt", "words", "read", "missing", "draws")
TEACHER = ("top", "measured")  # of a language model that scores, beside labellers
WRITER = ("tokenizer", "max_length", "scores")


def encoder(
    config: ApiConfig,
    *,
    task: str,
    text: TextSpec,
    tags: list[str],
    agent: str,
    files: dict[str, str] | None,
    texts: Callable[[], Iterable[str]],
) -> Encoder:
    """A labeller's reads bytes; that of a language model is the one that it names. See `ModelOffer.encoder`."""
    where = f"agents.{agent}.model.api"
    if head_of(task) == CAUSAL:
        _refuse(config, LABELLER, "it writes texts, and labels none", where)
        if config.scores is None:
            _refuse(config, TEACHER, "it writes texts, and scores none", where)
        elif text.pack:
            raise MeshError("texts that are scored are sent one by one", where="text.pack", instead="pack: false")
        if config.tokenizer is None:
            raise MeshError(
                "what an endpoint writes comes as characters, and those who read it read tokens",
                where=f"{where}.tokenizer",
                instead="the tokenizer of the agents that read it, as theirs is written: a folder, or {bpe: {...}}",
            )
        made = tokenizers.loads(files) if files is not None else tokenizers.load(config.tokenizer, texts, task)
        limit = text.max_length if config.max_length is None else min(config.max_length, text.max_length)
        return Encoder(made, task, max_length=limit, over=text.over, tags=tags, agent=agent, pack=text.pack)
    if problem_of(task) != SINGLE:
        raise MeshError(
            f"an endpoint does not answer for task {task}", where=where, instead="classification, or language_modelling"
        )
    _refuse(config, WRITER, "it reads texts as characters", where)
    only = TokenizerConfig(bpe=BpeConfig(vocabulary=BYTES))
    made = tokenizers.loads(files) if files is not None else tokenizers.load(only, lambda: ["a"], task)
    return Encoder(made, task, max_length=LONGEST, over="refuse", tags=tags, agent=agent)


def _refuse(config: ApiConfig, names: Sequence[str], why: str, where: str) -> None:
    for name in names:
        if getattr(config, name) != type(config).model_fields[name].default:
            raise MeshError(f"{why}: `{name}` has no effect", where=f"{where}.{name}", instead="leave it out")


def build(*, task: str, classes: int, labels: list[str], vocabulary: int, **config: Any) -> ApiModel:
    """Return the module; see `ModelOffer`. MeshError for labels that no word can be told by."""
    for name in ("pad", "separator"):
        config.pop(name)
    settings = ApiConfig.model_construct(_fields_set=set(config), **config)
    if head_of(task) == CAUSAL:
        return Served(settings, vocabulary)
    return Labeller(settings, words_of(settings, labels, classes))


def words_of(config: ApiConfig, labels: Sequence[str], classes: int) -> list[str]:
    """The word that stands for each label. MeshError where there is none, or two begin alike."""
    where, unnamed = "model.api.words", not labels
    labels = labels or [str(number) for number in range(classes)]
    if unknown := [name for name in config.words if name not in labels]:
        known = ", ".join(labels) or "none"
        raise MeshError(f"the data have no label {unknown[0]!r}", where=where, instead=f"of the labels {known}")
    if unnamed and len(config.words) < classes:
        what = f"the classes of the data are the numbers 0 to {classes - 1}, which are no words to answer with"
        raise MeshError(what, where=where, instead="a word for each: {0: negative, 1: positive}")
    words = [config.words.get(name, name).strip() for name in labels]
    for at, word in enumerate(words):
        if not word:
            raise MeshError(f"the word for {labels[at]!r} is empty", where=where, instead=f"{{{labels[at]}: WORD}}")
        for other in words[:at]:
            first, second = sorted((word.casefold(), other.casefold()), key=len)
            if second.startswith(first) or first.split()[0] == second.split()[0]:
                raise MeshError(
                    f"{other!r} and {word!r} begin alike, so that the first token does not tell them apart",
                    where=where,
                    instead=f"a word of its own for each: {{{labels[at]}: B}}",
                )
    return words


class ApiModel(nn.Module):
    """What labellers and language models behind endpoints have in common.

    ``asker``: what is asked; None where nobody is to be, as in a check before a run.
    """

    asker: Asker | None = None
    named: Callable[[Any], str] | None = None  # says of what stream and sample a text, or its tokens, are, for errors

    def __init__(self, config: ApiConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def needs(self) -> Needs:
        """What its forward asks of an endpoint."""
        return Needs()

    @property
    def says(self) -> bool:
        """Whether its forward says anything."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: a copy asks nobody."""
        return {name: value for name, value in self.__dict__.items() if name not in ("asker", "named")}

    def lacking(self, x: Tokens | Encoded, measuring: bool) -> Tensor:
        """The samples that it has no answer to, ``[n]`` bool."""
        return torch.ones(len(x), dtype=torch.bool)

    def about(self, text: str | Sequence[int]) -> str:
        """Of what stream and sample a text, or its tokens, are, as errors say it."""
        return f", for the text {text[:40]!r}" if self.named is None else self.named(text)

    def noticed(self) -> list[str]:
        """What whoever reads its figures must know."""
        return []

    def ask(self, asks: Sequence[tuple[Question, About]]) -> list[Reply]:
        """Ask the endpoint; each request comes with what says whereof it is."""
        if self.asker is None:
            raise RunFailed("its endpoint is asked in a run alone", where="model.api", instead="kdmesh run")
        return self.asker(asks)


class Served(ApiModel):
    """A language model behind an endpoint: it writes, and, with `scores`, says what comes next in given texts.

    ``forward(x) -> top-k [N, vocabulary]``: the `top` likeliest tokens at each place that is learned, at temperature 1,
    and what is left for all others.

    ``apart``: how many of its answers had reasoning that no text has.
    """

    def __init__(self, config: ApiConfig, vocabulary: int) -> None:
        super().__init__(config)
        self.vocabulary, self.apart = vocabulary, 0

    @property
    def needs(self) -> Needs:
        """See :class:`ApiModel`."""
        if self.config.scores is None:
            return Needs()
        return Needs(scored=self.config.top, whole=self._whole)

    @property
    def says(self) -> bool:
        """See :class:`ApiModel`."""
        return self.config.scores is not None

    def noticed(self) -> list[str]:
        """See :class:`ApiModel`."""
        if not self.apart:
            return []
        how = "text: {reasoning: [<think>, </think>]} keeps it"
        return [f"{self.apart} of its answers came with reasoning apart, which is left out: {how}"]

    @property
    def _whole(self) -> bool:
        return self.config.scores == "prompt_logprobs"

    def rows(self, path: str) -> str:
        """What its answers have rows of."""
        return "units"

    def lacking(self, x: Tokens | Encoded, measuring: bool) -> Tensor:
        """See :class:`ApiModel`."""
        return torch.full((len(x),), not (self.says and self.config.measured))

    def ahead(self, x: Encoded | Tokens) -> None:
        """Ask about many texts, several at a time, before they are forwarded in batches."""
        encoded: Any = getattr(x, "encoded", x)
        self.ask([ask for row in encoded.samples() for ask in self._asks(row.ids, row.units)])

    def forward(self, x: Tokens) -> Tensor | TopKLogits:
        """Return a row for each token that is learned."""
        if x.ids.is_meta:
            return torch.empty(len(x.units), self.vocabulary, device="meta")
        width, rows = x.ids.shape[1], dict[int, list[int]]()
        for unit in x.units.tolist():  # those of a row stand together, in the order of its tokens
            rows.setdefault(unit // width, []).append(unit % width)
        asks = [(units, self._asks(x.ids[row][x.mask[row]].tolist(), units)) for row, units in rows.items()]
        replies = iter(self.ask([one for _, own in asks for one in own]))
        places: list[Token] = []
        for units, own in asks:
            found = [next(replies).choices[0].tokens for _ in own]
            places += [found[0][unit] for unit in units] if self._whole else [one[0] for one in found]
        return self._signal(places, x.device)

    def _asks(self, ids: Sequence[int], units: Sequence[int]) -> list[tuple[Score, About]]:
        about = partial(self.about, ids)
        if self._whole:
            return [(Score(tuple(ids[: units[-1] + 2]), self.config.top, True), about)] if units else []
        return [(Score(tuple(ids[: unit + 1]), self.config.top, False), about) for unit in units]

    def _signal(self, places: Sequence[Token], device: torch.device) -> TopKLogits:
        index = torch.tensor([[int(name.partition(" ")[0]) for name, _ in one.top] for one in places])
        index = index.view(-1, self.config.top)
        if len(index) and int(index.max()) >= self.vocabulary:
            what = f"the endpoint says token {int(index.max())}, and its tokenizer here has {self.vocabulary}"
            raise RunFailed(what, where="model.api.tokenizer", instead="that of the model which is served")
        values = torch.tensor([[min(value, 0.0) for _, value in one.top] for one in places], dtype=torch.float32)
        values = values.view(-1, self.config.top)
        tail = (-values.double().exp().sum(1)).add(1).clamp_min(LEAST).log().float()
        return TopKLogits(values.to(device), index.int().to(device), tail.to(device), self.vocabulary, narrowed=False)


class Labeller(ApiModel):
    """A classifier behind an endpoint: ``forward(x) -> log p [B, C]``, float32, of the labels alone, at temperature 1.

    With `read: logprobs` the probability of a label is that of all listed first tokens together that begin its word
    and no other's, whatever their case and the spaces around; of one that none begins it is the most that it can have,
    the least listed or what is left beside all that are listed (`missing: bound`). With `read: answers` it is
    ``(count + 1/2) / (draws + C/2)`` of answers that are one of the words (Krichevsky and Trofimov, 1981).
    """

    def __init__(self, config: ApiConfig, words: Sequence[str]) -> None:
        super().__init__(config)
        self.words = [word.casefold() for word in words]
        self._labels = ", ".join(words)
        self._view = PromptView(config.prompt or PROMPT, "model.api.prompt")
        self._told: dict[bytes, tuple[int, int, float]] = {}  # by sample: labels that no token began, answers that were
        # no label's word, and the probability that stood on no label
        self._known: dict[bytes, list[float]] = {}  # what was read of a sample before, as each epoch has it again

    @property
    def needs(self) -> Needs:
        """See :class:`ApiModel`."""
        if self.config.read == "logprobs":
            return Needs(top=self.config.top)
        return Needs(n=self._together, drawn=1.0)

    def noticed(self) -> list[str]:
        """See :class:`ApiModel`."""
        asked, found = len(self._told), []
        bounded, unread, off = (sum(one[at] for one in self._told.values()) for at in range(3))
        if bounded:
            found.append(
                f"of {asked * len(self.words)} labels of {asked} texts {bounded} were begun by no listed token, and "
                "got the most that they can have"
            )
        if unread:
            found.append(f"{unread} of {asked * self._draws} answers were none of the labels' words")
        if asked and off / asked > OFF:
            found.append(f"{off / asked:.0%} of the probability stood on no label: does its prompt ask for them?")
        return found

    @property
    def _draws(self) -> int:
        return self.config.draws or DRAWS

    @property
    def _together(self) -> int:
        return self._draws if self.config.together else 1

    def rows(self, path: str) -> str:
        """What its answers have rows of."""
        return "samples"

    def lacking(self, x: Tokens | Encoded, measuring: bool) -> Tensor:
        """See :class:`ApiModel`."""
        return torch.full((len(x),), not self.config.measured)

    def ahead(self, x: Encoded | Tokens) -> None:
        """Ask about many samples, several at a time, before they are forwarded in batches."""
        encoded: Any = getattr(x, "encoded", x)
        self.ask([ask for row in encoded.samples() for ask in self._asks(row.ids)])

    def forward(self, x: Tokens) -> Tensor:
        """Return log-probabilities ``[B, C]``."""
        if x.ids.is_meta:
            return torch.empty(len(x), len(self.words), device="meta")
        rows = [ids[mask].cpu() for ids, mask in zip(x.ids, x.mask, strict=True)]
        keys = [sha256(row.numpy().tobytes()).digest() for row in rows]
        lacking = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._known}
        asks = {key: self._asks(row.tolist()) for key, row in lacking.items()}
        replies = iter(self.ask([one for own in asks.values() for one in own]) if asks else ())
        for key, own in asks.items():
            self._known[key] = self._read([next(replies) for _ in own], key, own[0][1])
        found = [self._known[key] for key in keys]
        return torch.tensor(found, dtype=torch.float32, device=x.device)

    def _asks(self, ids: Sequence[int]) -> list[tuple[Ask, About]]:
        """What is asked about one sample, with what says which it is."""
        text, pair = texts_of(ids)
        sample = Sample(text, pair=pair)
        prompt = self._view(sample, {"pair": pair or "", "labels": self._labels}).prompt or ""
        about = partial(self.about, text)
        turns = (("user", prompt),)
        if self.config.read == "logprobs":
            return [(Ask(turns, 1, top=self.config.top), about)]
        if self.config.together:
            return [(Ask(turns, ANSWER, n=self._draws), about)]
        return [(Ask(turns, ANSWER, seed=number + 1), about) for number in range(self._draws)]

    def _read(self, replies: Sequence[Reply], key: bytes, about: About) -> list[float]:
        if self.config.read == "logprobs":
            return self._of_first(replies[0].choices[0].tokens[0], key, about)
        counts = [0] * len(self.words)
        for choice in (choice for reply in replies for choice in reply.choices):
            if (label := self._label(choice.text)) is not None:
                counts[label] += 1
        total = sum(counts) + len(counts) / 2
        self._told[key] = 0, self._draws - sum(counts), 0.0
        return [math.log((count + 0.5) / total) for count in counts]

    def _label(self, text: str) -> int | None:
        """The label that an answer says; None for one that says none, or several."""
        said = text.strip().strip("\"'*.!`").casefold()
        found = [at for at, word in enumerate(self.words) if re.match(re.escape(word) + r"(?!\w)", said)]
        return found[0] if len(found) == 1 else None

    def _of_first(self, first: Token, key: bytes, about: About) -> list[float]:
        mass, listed = [0.0] * len(self.words), 0.0
        for token, logprob in dict(first.top).items():
            share, said = math.exp(min(logprob, 0.0)), token.strip().strip("Ġ▁").casefold()
            listed += share
            begun = [at for at, word in enumerate(self.words) if said and word.startswith(said)]
            if len(begun) == 1:
                mass[begun[0]] += share
        least = min(math.exp(min(value, 0.0)) for _, value in first.top)
        bound = max(min(least, 1.0 - min(listed, 1.0)), 1e-12)
        lacking = [at for at, share in enumerate(mass) if share <= 0]
        if lacking and self.config.missing == "refuse":
            raise RunFailed(
                f"none of the {len(first.top)} tokens that are listed begins {self.words[lacking[0]]!r}{about()}",
                where="model.api.top",
                instead="a larger `top`, a prompt that asks for these words, or missing: bound",
            )
        self._told[key] = len(lacking), 0, max(0.0, 1.0 - sum(mass))
        mass = [share if share > 0 else bound for share in mass]
        total = sum(mass)
        return [math.log(share / total) for share in mass]


def texts_of(ids: Sequence[int]) -> tuple[str, str | None]:
    """The text, and the second one of a pair, that a row of bytes says; see :func:`encoder`."""
    tokenizer, inner = _bytes(), list(ids)[1:-1]  # without what begins and ends a text
    end = tokenizer.eos_token_id
    parts: list[list[int]] = [[]]
    for token in inner:
        if token == end:
            parts.append([])
        else:
            parts[-1].append(token)
    said = [
        str(tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)) for part in parts
    ]
    if len(said) > 2:
        return str(tokenizer.eos_token).join(said), None
    return said[0], said[1] if len(said) == 2 else None


@cache
def _bytes() -> Any:
    """The tokenizer of a labeller."""
    return tokenizers.load(TokenizerConfig(bpe=BpeConfig(vocabulary=BYTES)), lambda: ["a"])
