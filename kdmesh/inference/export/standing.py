"""An exported file in its agent's place, so that it is asked and measured just as the agent is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kdmesh.hosts.scaled import scale

if TYPE_CHECKING:
    from kdmesh.inference.export.form import Answers
    from kdmesh.inference.export.graph import Graph
    from kdmesh.inference.trained import Trained


class Standing(nn.Module):
    """Takes what the agent's module takes, and asks the file."""

    def __init__(self, graph: Graph, answers: Answers) -> None:
        super().__init__()
        self._graph, self._answers = [graph], answers  # in a list: its weights are none of this

    def forward(self, x: Any) -> Tensor:
        """Return logits or values."""
        return self._answers(self._graph[0].given(x))

    def rows(self, path: str) -> str:
        """What a row of the answers is of."""
        return "samples"


class StandingForTexts(nn.Module):
    """The same, as a model of texts is kept: beside its encoder."""

    def __init__(self, model: Standing, encoder: Any) -> None:
        super().__init__()
        self.model, self.encoder = model, encoder


def stand_in(trained: Trained, graph: Graph, answers: Answers) -> Trained:
    """The agent, of which an exported file computes the answers."""
    found, config = Standing(graph, answers), trained.config.model_copy(update={"precision": "fp32"})
    if trained.is_text:
        return replace(trained, module=StandingForTexts(found, trained.module.encoder), config=config)
    if trained.divided_by is not None and trained.prepared is None:
        scale(found, trained.divided_by)
    return replace(trained, module=found, config=config)
