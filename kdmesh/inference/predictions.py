"""What a trained agent says of samples, in the words of the data: classes, probabilities, values, texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.contracts.metric import Answers
from kdmesh.errors import MeshError
from kdmesh.inference.writing import write_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from kdmesh.inference.trained import Trained
    from kdmesh.streams.texts import Sample
    from kdmesh.streams.unread import Unread


@dataclass(frozen=True)
class Predictions:
    """Answers to N samples in their order.

    ``names``: what the C columns are called: classes, values or labels. ``scores``: logits or values ``[N, C]``
    float32; ``probabilities``: of classes, or of each label on its own, ``[N, C]``; None where answers are values or
    texts. ``answers``: of each sample its class's name, the names of the labels that hold, its values, or the text that
    was written. ``cut``: the numbers of texts of which the beginning alone was read, as the agent reads no more.
    """

    names: list[str]
    answers: list[Any]
    scores: Tensor | None = None
    probabilities: Tensor | None = None
    cut: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.answers)

    def rows(self, top: int | None = None, every: bool = False) -> list[dict[str, Any]]:
        """Each answer as named cells. ``top``: also the so many likeliest classes; ``every``: all probabilities.

        MeshError where that cannot be said of these answers, or where two cells of a row would have one name.
        """
        refuse(self.names, self.probabilities is not None, top, every)
        if self.probabilities is None:
            if self.scores is None:
                return [{"text": text} for text in self.answers]
            return [dict(zip(self.names, values, strict=True)) for values in self.answers]
        found, several = [], bool(self.answers) and isinstance(self.answers[0], list)
        for answer, shares in zip(self.answers, self.probabilities.tolist(), strict=True):
            cells: list[tuple[str, Any]] = []
            if several:
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


def refuse(names: Sequence[str], classes: bool, top: int | None, every: bool) -> None:
    """Raise MeshError for what cannot be said of answers. ``classes``: whether they have probabilities."""
    if not classes and (top is not None or every):
        where = "--probabilities" if top is None else "--top"
        raise MeshError("these answers have no probabilities", where=where, instead="without it")
    if top is not None and not 1 <= top <= len(names):
        raise MeshError(f"found {top}", where="--top", instead=f"1 to {len(names)}: there are so many")


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
    MeshError for an agent whose answers are no row for each sample.
    """
    if trained.writes:
        assert isinstance(x, list | tuple)
        return Predictions([], write_texts(trained, x, most, told))
    if trained.offer.rows != "samples" or trained.offer.labels not in ("classes", "indicators", "values"):
        what = f"{trained.config.agent} learned {trained.config.task}, and answers more than once for a sample"
        instead = "kdmesh.load(...), whose module says how its rows are arranged"
        raise MeshError(what, file=str(trained.root), where="task", instead=instead)
    cut: list[int] = []
    names, scores = trained.names, trained.scores(x, told, cut)
    if trained.offer.labels == "values":
        return Predictions(names, scores.tolist(), scores, cut=tuple(cut))
    seen = Answers(scores, torch.zeros(len(scores), dtype=torch.int64))
    if trained.offer.labels == "indicators":
        holds = trained.task.decide(scores)
        assert holds is not None  # indicators are discrete
        labels = [[names[at] for at, held in enumerate(row) if held] for row in holds.tolist()]
        return Predictions(names, labels, scores, seen.marginals, tuple(cut))
    return Predictions(names, [names[at] for at in seen.column.tolist()], scores, seen.p, tuple(cut))
