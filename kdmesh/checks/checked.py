"""What the check found: data, streams, sizes and shapes, and what is worth saying. A run is built from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh.checks.bases import bases
from kdmesh.checks.licences import Licences

if TYPE_CHECKING:
    import torch

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.compression.pruning import Pruned
    from kdmesh.hosts.preprocessing import Preprocessor
    from kdmesh.hosts.rehearsal import Kind
    from kdmesh.hosts.standing import Given
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table


@dataclass
class Checked:
    """What the check learned: the data and how agents read them, each agent's size, and shapes without the batch axis.

    ``shapes``: of taps and signals by (agent, name), and by (agent, "") of outputs that are not one per class;
    ``numbers``: how many a row of a signal is made of, where it is not kept as a tensor; ``left_out``: rows of the
    table that are too long for some agent, in a mesh that drops such samples.
    """

    table: Table
    streams: dict[str, Stream]
    reading: Preprocessor
    left_out: torch.Tensor | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    pruned: dict[str, Pruned | None] = field(default_factory=dict)  # what pruning left, by the weights' owner
    held: dict[str, tuple[int, int]] = field(default_factory=dict)  # bytes by owner: of weights, of those that train
    shapes: dict[tuple[str, str], torch.Size] = field(default_factory=dict)
    statistics: dict[tuple[str, str], torch.Size] = field(default_factory=dict)  # whole, of signals of no samples
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)  # of the rows that a wide last layer maps to logits; 0: none
    kinds: dict[str, frozenset[Kind]] = field(default_factory=dict)  # of parameters that train, by the weights' owner
    states: dict[str, dict[str, str]] = field(default_factory=dict)  # by owner: type and shape of each entry of a state
    per_token: set[tuple[str, str]] = field(default_factory=set)  # the (agent, tap) that give a row for each token
    outputs: dict[str, Given] = field(default_factory=dict)  # what each agent gives
    layers: dict[tuple[str, str], Given] = field(default_factory=dict)  # and its layers that are read, by (agent, tap)
    given: dict[str, str] = field(default_factory=dict)  # the sums of the weights of modules from Python
    writers: dict[str, str] = field(default_factory=dict)  # the classes of writers from Python, by stream
    notes: list[str] = field(default_factory=list)  # what is not wrong, and worth saying before a run
    marks: list[str] = field(default_factory=list)  # those notes that qualify the figures: they stand in the summary
    whole: set[str] = field(default_factory=set)  # owners of weights of which a file had every one: nothing is drawn
    softmaxes: set[str] = field(default_factory=set)  # agents whose models end in one, as was noted
    served: dict[str, dict[str, Any]] = field(default_factory=dict)  # what was found at endpoints, by agent
    pairs: dict[str, torch.Tensor] = field(default_factory=dict)  # by agent, the rows of which it reads both answers
    learned: dict[str, list[Any]] = field(default_factory=dict)  # what agents have learned at the end: see lineage.py

    licences: Licences = field(default_factory=Licences)  # of what agents learn from

    def origins(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """By agent what its folder keeps of licences, and of what it began with."""
        return {name: {**self.licences.record(name), "bases": bases(plan, name, self.given)} for name in plan.owner}

    def mark(self, text: str) -> None:
        """Note what whoever reads the figures must know."""
        self.notes.append(text)
        self.marks.append(text)

    def size(self, stream: str, agent: str) -> int:
        """How many samples an agent sees on a stream."""
        return len(self.streams[stream].rows_for(agent))
