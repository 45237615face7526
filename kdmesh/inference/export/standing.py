"""An exported file in its agent's place, so that it is asked and measured just as the agent is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from kdmesh.hosts.scaled import scale
from kdmesh.inference.trained import Samples, Told, Trained, unheard
from kdmesh.signals.lazy import Lazy
from kdmesh.store.key import MEASURED
from kdmesh.streams.tokens import Encoded, starts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.inference.export.form import Answers
    from kdmesh.inference.export.graph import Graph
    from kdmesh.streams.tokens import Tokens

TOGETHER = 8  # texts that are asked at once, of one length each


class Standing(nn.Module):
    """Takes what the agent's module takes, and asks the file."""

    def __init__(self, graph: Graph, answers: Answers) -> None:
        super().__init__()
        self._graph, self._answers = [graph], answers  # in a list: its weights are none of this

    def forward(self, x: Any) -> Tensor:
        """Return logits or values."""
        graph = self._graph[0]
        return graph.rows(self._answers(graph.given(x)), x)

    def rows(self, path: str) -> str:
        """What a row of the answers is of."""
        return "samples"


class StandingForTexts(nn.Module):
    """The same, as a model of texts is kept: beside its encoder."""

    def __init__(self, model: nn.Module, encoder: Any) -> None:
        super().__init__()
        self.model, self.encoder = model, encoder


class LaterLogits(Lazy):
    """What a file says of the tokens of texts, ``[N, V]``, asked when rows are: over all texts they fill gigabytes.

    ``ask`` gives the rows of a batch of so many texts ``together``; ``told`` is called with how many are done.
    """

    def __init__(
        self,
        texts: Encoded,
        width: int,
        together: int,
        ask: Callable[[Tokens], Tensor],
        told: Told,
    ) -> None:
        self._texts, self._together, self._ask, self._told = texts, together, ask, told
        self._starts = starts_of(texts.counts)
        self._last: dict[int, Tensor] = {}  # of the last text, of which the next rows may be too
        super().__init__(torch.Size((int(self._starts[-1]), width)), torch.float32, torch.device("cpu"), False)

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Of the texts that these are of, each in a shape of its own."""
        first = int((self._starts[1:] <= start).sum())
        last = int((self._starts[:-1] < stop).sum())
        parts = {number: found for number, found in self._last.items() if first <= number < last}
        asked = torch.tensor([number for number in range(first, last) if number not in parts], dtype=torch.int64)
        for at, tokens in self._texts.select(asked).parts(self._together) if len(asked) else ():
            found = self._ask(tokens).split(tokens.counts.tolist())
            parts |= dict(zip(asked[at].tolist(), found, strict=False))  # rows beyond repeat a text
            self._told(first + len(parts))
        self._last = {last - 1: parts[last - 1]}
        whole = torch.cat([parts[number] for number in range(first, last)])
        skipped = int(self._starts[first])
        return whole[start - skipped : stop - skipped]


@dataclass
class StandIn(Trained):
    """An agent of which something else says what comes after each token: ``ask`` gives the rows of a batch of texts.

    ``width``: of these; ``together``: how many texts a batch has.
    """

    ask: Callable[[Tokens], Tensor]
    width: int
    together: int
    continues: ClassVar[bool] = False

    @classmethod
    def of(cls, trained: Trained, ask: Callable[[Tokens], Tensor], width: int, together: int) -> StandIn:
        """In the place of an agent."""
        return cls(trained.root, trained.module, trained.config, ask, width, together)

    def scores(self, x: Samples, told: Told = unheard, rows: int = MEASURED) -> Tensor | Lazy:
        """See :meth:`Trained.scores`."""
        assert isinstance(x, Encoded)
        return LaterLogits(x, self.width, self.together, self.ask, told)


def stand_in(trained: Trained, graph: Graph, answers: Answers) -> Trained:
    """The agent, of which an exported file computes the answers."""
    found, config = Standing(graph, answers), trained.config.model_copy(update={"precision": "fp32"})
    if trained.writes:
        width = graph.output.shape[-1]
        assert isinstance(width, int)
        return StandIn.of(Trained(trained.root, trained.module, config), found.forward, width, TOGETHER)
    if trained.is_text:
        return Trained(trained.root, StandingForTexts(found, trained.module.encoder), config)
    if trained.divided_by is not None and trained.prepared is None:
        scale(found, trained.divided_by)
    return Trained(trained.root, found, config)
