"""Each link of a chain teaches the next, from large to small, or from one generation to its successor.

Mirzadeh et al., Improved Knowledge Distillation via Teacher Assistant, 2020. Dense: Son et al., Densely Guided
Knowledge Distillation using Multiple Teacher Assistants, 2021, where every earlier link teaches (the sum of their KLs;
without the paper's random dropping of teachers). Generations: Furlanello et al., Born-Again Neural Networks, 2018.

    flows:                                                    # agents: [t, a, s]
      - {from: labels, to: a, stream: train, objective: ce, weight: 0.5}
      - {from: t, to: a, stream: train, objective: {kl: {temperature: 4}}, weight: 0.5}
      - {from: labels, to: s, stream: train, objective: ce, weight: 0.5}
      - {from: a, to: s, ...}                                 # dense: {from: t, to: s, ...} stands before it

A link that is a group teaches through a consensus. `generations: 3` turns the last link s into s, s.g2, s.g3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from kdmesh.builtin.strategies import _common
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.builtin.strategies._common import LabelWeight, Weight
    from kdmesh.graph.canvas import Canvas
    from kdmesh.spec import ConsensusSpec, ObjectiveRef


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Stages that follow from the graph: a link trains when the links that teach it are done."""

    agents: list[str | list[str]]
    consensus: ConsensusSpec
    objective: ObjectiveRef
    labels: LabelWeight | None
    weight: Weight | None
    stream: str
    labels_stream: str
    dense: bool
    generations: int | None

    def draw(self, canvas: Canvas) -> None:
        """Draw each later link's labels, then its teachers from the first link to the last."""
        links = self._links(canvas)
        weight = _common.teaching(canvas, self.weight, self.labels)
        if self.dense and len(links) == 2:
            raise MeshError(
                "`dense` has no effect: of two links, the second has no other before it than the first",
                where=f"{canvas.where}.dense",
                instead="three links or more, or leave `dense` out",
            )
        if all(len(link) == 1 for link in links[:-1]):
            _common.refuse_rule(canvas, self.consensus)
        teachers: list[str] = []
        for before, link in pairwise(links):
            teachers.append(self._teacher(canvas, before))
            canvas.labels(link, self.labels, stream=self.labels_stream)
            for teacher in teachers if self.dense else teachers[-1:]:
                stream = self.stream if teacher in canvas.agents else None  # a consensus has its own
                canvas.flow(teacher, link, stream=stream, objective=self.objective, weight=weight)

    def _links(self, canvas: Canvas) -> list[list[str]]:
        """The agents of each link, generations included."""
        links: list[list[str]] = []
        for number, link in enumerate(self.agents):
            field = f"agents.{number}"
            links.append(canvas.learners(link, field) if number else canvas.names(link, field))
        canvas.names([name for link in links for name in link], "agents")  # nobody twice
        for generation in range(2, (self.generations or 1) + 1):
            links.append([self._born_again(canvas, name, generation) for name in links[len(self.agents) - 1]])
        if len(links) == 1:
            raise MeshError(
                "a chain needs at least two links",
                where=f"{canvas.where}.agents",
                instead="[teacher, assistant, student], or `generations: 3`",
            )
        return links

    @staticmethod
    def _born_again(canvas: Canvas, name: str, generation: int) -> str:
        """An agent like ``name`` that starts from weights of its own."""
        spec = canvas.agents[name]
        if spec.weights_of is not None:
            raise MeshError(
                f"{name!r} shares the weights of {spec.weights_of!r}, and has no model for another generation",
                where=f"{canvas.where}.generations",
                instead=f"agents: [{spec.weights_of}]",
            )
        fresh = {"update": "grad", "weights": None, "new_head": None, "seed": None, "init_of": None}
        return canvas.agent(f"{name}.g{generation}", spec.model_copy(update=fresh))

    def _teacher(self, canvas: Canvas, link: list[str]) -> str:
        """The node that speaks for a link."""
        if len(link) == 1:
            return link[0]
        node = canvas.consensus("c", self.consensus)
        canvas.flow(link, node, stream=self.stream)
        return node
