"""What a trained agent says of samples, in the words of the data: classes, values, spans, orders, texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers
from kdmesh.errors import MeshError
from kdmesh.inference.writing import write_texts
from kdmesh.signals.lazy import dense
from kdmesh.streams.tokens import Encoded
from kdmesh.streams.unread import Unread
from kdmesh.text.encoder import NO_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdmesh.inference.trained import Trained
    from kdmesh.streams.texts import Sample

Kind = Literal["class", "labels", "values", "spans", "order", "text"]


class Span(NamedTuple):
    """Consecutive words of a text with one tag: characters from ``start``, before ``end``.

    ``probability``: that of the tag, the mean over its words.
    """

    start: int
    end: int
    label: str
    probability: float


@dataclass(frozen=True)
class Predictions:
    """Answers to N samples in their order.

    ``names``: what the C columns are called: classes, values, labels or tags. ``scores``: logits or values ``[N, C]``
    float32; ``probabilities``: of classes, or of each label on its own, ``[N, C]``; None where answers are values or
    texts. ``answers``: of each sample its class's name, the names of the labels that hold, its values, the text that
    was written, the :class:`Span` items of its words that have a tag, or the numbers of its candidates from 0, the best
    first; ``kind``: which of these. Where words are tagged ``scores`` and ``probabilities`` have a row for each word,
    ``counts`` of each sample; of candidates ``scores [N, L]`` are ``-inf`` where there is none. ``cut``: the numbers of
    texts of which the beginning alone was read, as the agent reads no more.
    """

    names: list[str]
    answers: list[Any]
    scores: Tensor | None = None
    probabilities: Tensor | None = None
    cut: tuple[int, ...] = ()
    kind: Kind = "class"
    counts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.answers)

    def rows(self, top: int | None = None, every: bool = False) -> list[dict[str, Any]]:
        """Each answer as named cells. ``top``: also the so many likeliest classes, or so many of the best candidates
        alone; ``every``: all probabilities.

        MeshError where that cannot be said of these answers, or where two cells of a row would have one name.
        """
        refuse(self.kind, self.names, top, every)
        match self.kind:
            case "text":
                return [{"text": text} for text in self.answers]
            case "values":
                return [dict(zip(self.names, values, strict=True)) for values in self.answers]
            case "spans":
                return [{"spans": [span._asdict() for span in spans]} for spans in self.answers]
            case "order":
                return self._orders(top)
        assert self.probabilities is not None
        found = []
        for answer, shares in zip(self.answers, self.probabilities.tolist(), strict=True):
            cells: list[tuple[str, Any]] = []
            if self.kind == "labels":
                cells += [(name, int(name in answer)) for name in self.names]
            else:
                cells += [("label", answer), ("probability", max(shares))]
            if top is not None:
                best = sorted(range(len(shares)), key=lambda at: -shares[at])[:top]
                for place, at in enumerate(best, 1):
                    cells += [(f"label_{place}", self.names[at]), (f"probability_{place}", shares[at])]
            if every:
                cells += [(f"p_{name}", share) for name, share in zip(self.names, shares, strict=True)]
            found.append(dict(cells))
            if len(found[-1]) < len(cells):
                names = [name for name, _ in cells]
                raise twice(next(name for name in names if names.count(name) > 1))
        return found

    def _orders(self, top: int | None) -> list[dict[str, Any]]:
        """The best candidate of each, and those that follow with their scores."""
        assert self.scores is not None
        found = []
        for order, scores in zip(self.answers, self.scores.tolist(), strict=True):
            first = order[:top]
            found.append({"best": first[0], "order": first, "scores": [scores[at] for at in first]})
        return found


def kind_of(trained: Trained) -> Kind:
    """What an agent's answers are. MeshError for one whose answers have no words here."""
    if trained.writes:
        return "text"
    if trained.tags:
        return "spans"
    kinds: dict[str, Kind] = {"classes": "class", "indicators": "labels", "values": "values", "relevance": "order"}
    if trained.offer.rows != "samples" or trained.offer.labels not in kinds:
        what = f"{trained.config.agent} learned {trained.config.task}, and answers more than once for a sample"
        instead = "kdmesh.load(...), whose module says how its rows are arranged"
        raise MeshError(what, file=str(trained.root), where="task", instead=instead)
    return kinds[trained.offer.labels]


def refuse(kind: Kind, names: Sequence[str], top: int | None, every: bool) -> None:
    """Raise MeshError for what cannot be said of answers."""
    several, where = kind in ("class", "labels"), "--probabilities" if every else "--top"
    if (every and not several) or (top is not None and not several and kind != "order"):
        said = {"spans": "each span has the probability of its tag", "order": "candidates have scores"}
        what = said.get(kind, "these answers have no probabilities")
        raise MeshError(what, where=where, instead="without it")
    if top is not None and (top < 1 or (several and top > len(names))):
        instead = f"1 to {len(names)}: there are so many" if several else "a whole number from 1"
        raise MeshError(f"found {top}", where="--top", instead=instead)


def twice(name: str) -> MeshError:
    """The error of a table of which two columns would have one name."""
    instead = "from Python, kdmesh.load(...).predict(...), where they stand apart"
    return MeshError(f"two columns of the answers would be called {name!r}", instead=instead)


def predict(
    trained: Trained,
    x: Tensor | Unread | Sequence[Sample],
    *,
    most: int = 64,
    told: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """Ask an agent of samples ``[N, ...]``, or of texts.

    ``most``: tokens of an answer, where texts are written, each greedily. ``told``: called with how many are done.
    MeshError for an agent whose answers have no words here.
    """
    kind = kind_of(trained)
    if kind == "text":
        assert isinstance(x, list | tuple)
        return Predictions([], write_texts(trained, x, most, told), kind=kind)
    cut: list[int] = []
    read = x if isinstance(x, Tensor | Unread) else trained.tokens(x, cut)
    names, scores = trained.names, dense(trained.scores(read, told))
    if kind == "values":
        return Predictions(names, scores.tolist(), scores, cut=tuple(cut), kind=kind)
    if kind == "order":
        orders = scores.argsort(dim=1, descending=True, stable=True).tolist()
        counts = (scores != -torch.inf).sum(1).tolist()
        answers = [order[:count] for order, count in zip(orders, counts, strict=True)]
        return Predictions(names, answers, scores, cut=tuple(cut), kind=kind)
    seen = Answers(scores, torch.zeros(len(scores), dtype=torch.int64))
    if kind == "spans":
        assert isinstance(read, Encoded)
        counts = read.counts.tolist()
        return Predictions(names, _spans(names, seen, read), scores, seen.p, tuple(cut), kind, tuple(counts))
    if kind == "labels":
        holds = trained.task.decide(scores)
        assert holds is not None  # indicators are discrete
        labels = [[names[at] for at, held in enumerate(row) if held] for row in holds.tolist()]
        return Predictions(names, labels, scores, seen.marginals, tuple(cut), kind)
    return Predictions(names, [names[at] for at in seen.column.tolist()], scores, seen.p, tuple(cut), kind)


def _spans(names: list[str], seen: Answers, read: Encoded) -> list[list[Span]]:
    """The spans of each text: consecutive words of a tag are one."""
    found: list[list[Span]] = []
    tags, shares, words = seen.column.tolist(), seen.confidence.tolist(), read.spans.tolist()
    at = 0
    for count in read.counts.tolist():
        spans, run = list[Span](), list[int]()
        for word in range(at, at + count + 1):
            tag = None if word == at + count else tags[word]
            if run and tag != tags[run[0]]:
                if (name := names[tags[run[0]]]) != NO_TAG:
                    share = sum(shares[one] for one in run) / len(run)
                    spans.append(Span(words[run[0]][0], words[run[-1]][1], name, share))
                run = []
            run.append(word)
        found.append(spans)
        at += count
    return found
