"""What a host holds: data only. Every function that works on it takes it as its first argument."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from kdmesh.hosts.loader import Loader
from kdmesh.hosts.preprocessing import Preprocessor, Read
from kdmesh.hosts.profile import Profile
from kdmesh.hosts.publications import Publications
from kdmesh.hosts.shelf import Shelf
from kdmesh.streams.private import own_part
from kdmesh.streams.stream import without

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from torch import Tensor, nn

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.consensus import Consensus
    from kdmesh.hosts.per_sample import PerSample
    from kdmesh.hosts.preprocessing import Files
    from kdmesh.hosts.rollouts import Author
    from kdmesh.hosts.standing import Given
    from kdmesh.hosts.weights import Weights
    from kdmesh.hosts.written import Writer
    from kdmesh.offers import Offer
    from kdmesh.plugins import Registry
    from kdmesh.privacy.account import Account
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

    Purpose = Literal["teaching", "training"]
    Array = np.ndarray[Any, Any]


@dataclass
class Seconds:
    """Seconds that nodes of one stage took on a host: forwards to teach, and forwards and updates to learn."""

    teaching: dict[str, float] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)

    def add(self, purpose: Purpose, node: str, seconds: float) -> None:
        """Add what a node took."""
        spent: dict[str, float] = getattr(self, purpose)
        spent[node] = spent.get(node, 0.0) + seconds


@dataclass
class Tally:
    """How a gate decided so far: steps in which it was ``asked``, in which it ``shut``, and shares of rows ``kept``.

    Steps in which it was not asked, as the agent's own gate was shut or nothing was known of `of`, are in none of them.
    """

    asked: int = 0
    shut: int = 0
    kept: float = 0.0


class Kept(NamedTuple):
    """How one agent or consensus answered each row: see :class:`kdmesh.report.answers.Answers` and `Of`."""

    ids: Array
    labels: Array
    score: Array | None
    decision: Array | None
    confidence: Array | None
    values: Array | None


@dataclass
class HostConfig:
    """What every host is built from.

    ``shapes``: the shape, without its batch axis, of a tap or of a signal that is made, by (agent, name), and under the
    name "" of outputs that are not one per class. ``strict``: what a consensus gives is checked. ``tokenizers``: of
    agents that read texts, by the weights' owner. ``left_out``: rows of the table that no agent sees.
    ``learned``: by agent, the records of :mod:`kdmesh.streams.learned`. ``values``: of columns that
    rules and metrics read, all there are in the data. ``writers``: by stream that an agent writes, what writes it;
    ``authors``: by stream of texts, what writes it in place of its agent.
    ``profiled``: calls of what is offered are counted and timed. ``statistics``: the whole shapes of signals whose rows
    are of no samples, as ``shapes``. ``inputs``: by agent that sees another's output in the place of samples, what that
    is. ``offers``: those that no package has installed. ``store``: the folder of answers that are kept, "" for none;
    ``store_limit``: its bytes, None for any number. ``near``: all hosts have these files, so that what one has kept
    there another need not be sent. ``served``: by agent behind an endpoint, what was found there; ``journals``: the
    folder where what is sent to endpoints is noted, "" for none. ``accounts``: by party with a privacy budget, what
    answers for it. ``licences``: by agent, what its folder says of what it learned from, and of what it began with.
    """

    plan: Plan
    modules: dict[str, nn.Module] = field(default_factory=dict)
    shapes: dict[tuple[str, str], torch.Size] = field(default_factory=dict)
    strict: bool = False
    tokenizers: dict[str, Files] = field(default_factory=dict)
    left_out: Tensor | None = None
    learned: dict[str, list[Any]] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    writers: dict[str, Writer] = field(default_factory=dict)
    profiled: bool = False
    statistics: dict[tuple[str, str], torch.Size] = field(default_factory=dict)
    inputs: dict[str, Given] = field(default_factory=dict)
    offers: tuple[Offer, ...] = ()
    store: str = ""
    store_limit: int | None = None
    authors: dict[str, Author] = field(default_factory=dict)
    near: bool = False
    served: dict[str, dict[str, Any]] = field(default_factory=dict)
    journals: str = ""
    accounts: Mapping[str, Account] = field(default_factory=dict)
    licences: Mapping[str, dict[str, Any]] = field(default_factory=dict)


class HostState:
    """Agents, their weights, streams and publications, on one host.

    What is built of it, its agents, rules and objectives, :class:`kdmesh.hosts.host.Host` puts in as it is made.
    """

    def __init__(
        self,
        name: str,
        config: HostConfig,
        table: Table,
        streams: dict[str, Stream],
        registry: Registry,
        reading: Preprocessor | None = None,
        read: Read | None = None,
    ) -> None:
        """``reading``: of the whole table, where it was read before; or ``read``, what its texts are as tokens."""
        self.name, self.plan, self.registry = name, config.plan, registry
        self.config = config
        self.dropped = self.plan.dropped
        self.seed = self.plan.spec.seed
        self._samples = len(table)
        self.shelf = Shelf.open(config.store, config.store_limit)
        self.streams = without(streams, config.left_out)
        self.table = own_part(table, self.streams, self.plan.hosts[name], self.plan.users)
        whole = read if self.table is table else None  # of the same samples
        self.reading = reading or Preprocessor(self.plan, self.table, registry, config.tokenizers, read=whole)
        self.publications = Publications()
        self.gone: dict[str, int] = {}  # parties that do not take part, and for how many rounds in a row
        self.reading.inputs = config.inputs
        self.loader = Loader(self.reading, self.streams, self.seed)
        self.writers: dict[str, Writer] = {}  # of agents here, by stream
        self.authors: dict[str, Author] = {}  # of agents here, by stream of texts
        self.values: dict[str, list[str]] = config.values  # of columns that are read, also in samples elsewhere
        self.weights: dict[str, Weights] = {}  # by owner
        self.agents: dict[str, Agent] = {}
        self.per_sample: dict[str, PerSample] = {}  # of agents that train privately, while they do
        self.snapshots: dict[str, Agent] = {}
        self.consensus: dict[str, Consensus] = {}
        self.pools: dict[str, Any] = {}  # rules that combine weights here, by consensus
        self.objectives: dict[int, Any] = {}  # by flow
        self.gates: dict[tuple[str, int | str], Any] = {}  # by ("flow", its id), or ("update", the agent)
        self.gated: dict[tuple[str, int | str], Tally] = {}  # by the same, how each decided
        self.watched: set[str] = set()  # agents here whose figures on validation a gate is given
        self.figures: dict[str, dict[str, float]] = {}  # by agent, those that were last measured
        self.measured: dict[str, dict[str, int]] = {}  # of these, how many steps of each lesson were done then
        self.made: dict[str, dict[str, int]] = {}  # forwards for a stage that has agents here, by stage and agent
        self.passes: dict[tuple[str, str], int] = {}  # forwards of the last publication, by agent and stream
        self.answering: dict[str, Callable[[], dict[str, Any]]] = {}  # by stage, what is answered ahead of its steps
        self.answered: dict[str, dict[str, Any]] = {}  # the same, of the phase that a stage goes on with
        self.predictions: dict[str, Tensor] = {}
        self.sorted: dict[str, Any] = {}  # by stream that is written once, its texts, and why each is dropped
        self.test: dict[str, Kept] = {}  # by agent or consensus: see answered.py
        self.softened: dict[str, bool] = {}  # whether an agent's answers look like probabilities, by the first ones
        self.best: dict[str, tuple[float, dict[str, Tensor]]] = {}
        self.numbers: dict[tuple[str, int], Tensor] = {}  # of values, by column and shard view
        self.seconds: dict[str, Seconds] = {}  # by stage
        self.profile = Profile() if config.profiled else None
        self.step: int | None = None  # the step that is under way
        self.began = time.process_time()
        self._threads = 0
        self._assemble(table)

    def _assemble(self, table: Table) -> None:
        """Put in what is built of this; ``table``: with the samples of all hosts."""

    @property
    def withholds(self) -> bool:
        """Whether this is a party with a privacy budget, which tells nobody what is made of its samples."""
        return self.name in self.plan.withholding

    @property
    def device(self) -> torch.device:
        """Where the first agent computes: what comes from elsewhere is put there. Of a host without agents the CPU."""
        return next((one.device for one in self.agents.values()), torch.device("cpu"))

    def forward_size(self, agent: str) -> int:
        """Rows of each forward of an agent whose bits must not vary with the batch."""
        return self.plan.forward_size(agent, self._samples)

    def timed(self, kind: str, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call of something that is offered, counted where that is asked for; else itself."""
        return call if self.profile is None else self.profile.timed(kind, name, call)

    def threads(self, count: int) -> None:
        """Use so many torch threads from here on."""
        if count != self._threads:
            torch.set_num_threads(count)
            self._threads = count

    def seconds_of(self, stage: str) -> Seconds:
        """What nodes took for a stage, to be added to."""
        return self.seconds.setdefault(stage, Seconds())

    def count(self, stage: str, agent: str, forwards: int) -> None:
        """Add forwards that an agent made for a stage."""
        if forwards:
            counts = self.made.setdefault(stage, {})
            counts[agent] = counts.get(agent, 0) + forwards
