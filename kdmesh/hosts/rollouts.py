"""Written streams of texts: which prompts fall due when, and what was written to them as batches.

Everybody derives from the plan and a step's number which prompts the step is about (:class:`Schedule`); only the texts
themselves are written by an agent, cross, and stand among the publications of each host that reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from kdmesh.hosts.loader import Batch
from kdmesh.hosts.publications import Key, Publication
from kdmesh.hosts.written import IDS, KIND, STEP, X, period
from kdmesh.streams.order import alike, epoch_order, steps_per_epoch
from kdmesh.streams.seeds import mix
from kdmesh.streams.tokens import Encoded, Row, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.loader import ShardView
    from kdmesh.hosts.publications import Publications
    from kdmesh.spec import TrainSpec
    from kdmesh.streams.stream import Stream

ONCE = "once"
PROMPTS, LENGTHS, KEPT, GIVEN, RIVALS = "prompts", "lengths", "kept", "given", "rivals"
REWARD, WRITTEN = "reward", "written"
TEXT_PARTS = {X, IDS, PROMPTS, LENGTHS, KEPT, GIVEN, REWARD, WRITTEN, RIVALS}
"""What written texts are made of: all their tokens, and of each its sample, tokens of the prompt, tokens in all, and
whether it is learned; where its stream says so, how right it is; where an objective asks, of each token of an answer
its log-probability when it was written; where they are pairs, the place of the text that is rejected in its favour, -1
for none; and, where a gate mixes in given samples, of each step whether it has these."""


class Asked(NamedTuple):
    """One text that is to be written: to the prompt of a sample, by its number in the table, with its own seed.

    ``read``: the texts of other streams that its template may name, by name.
    """

    sample: int
    seed: int
    read: dict[str, dict[str, Any]] = {}  # noqa: RUF012  # never written to


class Author(Protocol):
    """What writes the texts of a stream."""

    def write(self, agent: Agent, asked: Sequence[Asked], rows: int) -> list[tuple[list[int], int]]:
        """The tokens of each text, its prompt first, and how many of them are the prompt's.

        ``rows``: how many are written at a time.
        """


def every(plan: Plan, stream: str, first: Stream, settings: TrainSpec, steps: int) -> int | None:
    """Steps whose texts are written together; None: all at once, and never again. See :func:`written.period`.

    ``steps``: how many the phase has from where it began, in the round that is under way.
    Micro-batches of one update are written together, as the weights do not change between them.
    """
    spec = plan.spec.streams[stream]
    if spec.refresh == ONCE:
        return None
    if spec.refresh == "round":
        return steps
    if spec.refresh in (None, "step") and spec.generated_by is not None:
        return plan.train(spec.generated_by).accumulate
    return period(plan, stream, first, settings)


class Schedule:
    """Which samples of a written stream each step of a phase has, and which steps are written together.

    ``prompts``: the name of the stream that they are of, in whose order they come; ``sizes``: how long its samples are,
    where batches are of samples alike in length; ``share``: of steps that are of given samples instead, None: as
    :meth:`decide` is told; ``drawn``: the names by which that is seeded; ``every``: steps that are written together,
    counted from ``first`` on, None: all there ever are; ``last``: where the phase ends.
    """

    def __init__(
        self,
        stream: Stream,
        prompts: str,
        sizes: Tensor | None,
        seed: int,
        every: int | None,
        first: int,
        last: int,
        share: float | None = 0.0,
        drawn: tuple[str, ...] = (),
    ) -> None:
        self.stream, self.every, self.gated = stream, every, share is None
        self._prompts, self._sizes, self._seed, self._first, self._last = prompts, sizes, seed, first, last
        self._order: tuple[int, Tensor] = (-1, stream.rows)
        self._share, self._drawn = share, drawn
        self._decided: dict[int, bool] = {}

    def decide(self, first: int, given: Sequence[bool]) -> None:
        """Say of the steps from ``first`` on, which are written together, which are of given samples."""
        self._decided = dict(enumerate(given, first))

    def is_given(self, step: int) -> bool:
        """Whether a step is of given samples."""
        if self._share is None:
            return self._decided[step]
        if not self._share:
            return False
        drawn = torch.Generator().manual_seed(mix(self._seed, "mix", *self._drawn, step))
        return bool(torch.rand((), generator=drawn, dtype=torch.float64) < self._share)

    def at(self, step: int, size: int, drop_last: bool) -> tuple[Tensor, int]:
        """The positions in the stream of a step's samples, and the epoch."""
        epoch, index = divmod(step, steps_per_epoch(len(self.stream.rows), size, drop_last))
        if self._order[0] != epoch:
            draws = self.stream.draws
            order = epoch_order(self._seed, self._prompts, epoch, len(self.stream.rows) // draws)
            if self._sizes is not None:
                whole = drop_last and draws == 1
                together = mix(self._seed, "alike", self._prompts, epoch)
                order = alike(order, self._sizes, max(1, size // draws), whole, together)
            self._order = epoch, (order[:, None] * draws + torch.arange(draws)).flatten()
        return self._order[1][index * size : (index + 1) * size], epoch

    def begins(self, step: int) -> int:
        """The step before whose forwards that which a step reads was written."""
        return self._first if self.every is None else step - (step - self._first) % self.every

    def window(self, step: int) -> range:
        """The steps that are written together with this one."""
        begins = self.begins(step)
        return range(begins, self._last if self.every is None else min(begins + self.every, self._last))

    def due(self, step: int, size: int, drop_last: bool) -> Tensor:
        """The positions of all that is written at a step, in the order in which it stands there."""
        if self.every is None:
            return torch.arange(len(self.stream.rows))
        steps = [self.at(one, size, drop_last)[0] for one in self.window(step) if not self.is_given(one)]
        return torch.cat(steps) if steps else torch.empty(0, dtype=torch.int64)


class Rollouts:
    """Written texts as the agents on one device read them: each step has its own of what was written last.

    Positions of given samples, in the steps that have such instead, are below 0: the sample at 0 is at -1.
    """

    owner = ""  # it is not divided
    units = True  # a language model answers for each token

    def __init__(
        self,
        publications: Publications,
        schedule: Schedule,
        agent: str,
        device: torch.device,
        pad: int,
        pack: int | None,
        given: ShardView | None = None,
        prompt: Callable[[int], list[int]] | None = None,
    ) -> None:
        """``agent``: at whose host it is written; ``pad``, ``pack``: see :class:`Encoded`; ``given``: is mixed in;
        ``prompt``: the tokens that these agents see before an answer, by the sample, None: those of the writer.
        """
        self._given, self._prompt = given, prompt
        self.stream, self.schedule, self.device = schedule.stream, schedule, device
        self._publications, self._pad, self._pack = publications, pad, pack
        self._keys = {part: Key(agent, self.stream.name, part, KIND) for part in (*TEXT_PARTS, STEP)}
        self._made: tuple[Publication | None, Encoded | None] = (None, None)
        self._told: Publication | None = None

    def count(self, step: int, size: int, drop_last: bool) -> int:
        """How many tokens are learned in a step that is written already."""
        if self._given is not None and self._is_given(step):
            return self._given.count(step, size, drop_last)
        texts = self._texts()
        return 0 if texts is None else int(texts.counts[self._kept(step, size, drop_last)[0]].sum())

    def sizes(self, step: int, size: int, drop_last: bool) -> int:
        """How many samples there are in a step that is written already."""
        if self._given is not None and self._is_given(step):
            return self._given.sizes(step, size, drop_last)
        return 0 if self._texts() is None else len(self._kept(step, size, drop_last)[0])

    def batch(self, step: int, size: int, drop_last: bool) -> Batch | None:
        """What was written for a step and kept; None where nothing was, as of a dropped agent."""
        if self._given is not None and self._is_given(step):
            batch = self._given.batch(step, size, drop_last)
            assert batch is not None
            return batch._replace(y=batch.x.targets if self.stream.labelled else None, at=-1 - batch.at)
        texts = self._texts()
        if texts is None:
            return None
        at, epoch = self._kept(step, size, drop_last)
        if not len(at):
            return None  # filters have dropped all of them
        tokens = texts.batch(at)
        return Batch(tokens, tokens.targets if self.stream.labelled else None, at, epoch)

    def rows(self, at: Tensor) -> Tensor:
        """Where the answers for texts at positions ``at`` stand among those for all that was written last."""
        if self._given is not None and _below(at):
            return self._given.rows(-1 - at)
        texts = self._texts()
        assert texts is not None
        return texts.unit_rows(at)

    def samples(self, at: Tensor) -> Tensor:
        """The ids of the samples that were answered."""
        if self._given is not None and _below(at):
            return self._given.samples(-1 - at)
        return self._part(IDS)[at.cpu()]

    def unit_samples(self, at: Tensor) -> Tensor:
        """The same, once for each token that a text has to learn."""
        if self._given is not None and _below(at):
            counts = self._given.x.counts  # type: ignore[union-attr]  # of texts
            return self.samples(at).to(self.device).repeat_interleave(counts[-1 - at])
        texts = self._texts()
        assert texts is not None
        return self.samples(at).to(self.device).repeat_interleave(texts.counts[at])

    def facts(self, needs: Collection[str], at: Tensor) -> dict[str, Tensor]:
        """What objectives ask about the texts at positions ``at``, ``[N]`` each, a row for a token that is learned."""
        texts = self._texts()
        assert texts is not None
        counts = texts.counts[at]
        found: dict[str, Tensor] = {}
        if "text" in needs:
            found["text"] = torch.arange(len(at), device=self.device).repeat_interleave(counts)
        if "group" in needs:
            found["group"] = self.unit_samples(at)
        if "reward" in needs:
            found["reward"] = self._part(REWARD)[at.cpu()].to(self.device).repeat_interleave(counts)
        if "written" in needs:
            found["written"] = self._part(WRITTEN)[texts.unit_rows(at).cpu()].to(self.device)
        return found

    def texts(self, step: int, size: int, drop_last: bool) -> int:
        """How many texts are learned in a step that is written already."""
        if self._given is not None and self._is_given(step):
            return size
        return 0 if self._texts() is None else len(self._kept(step, size, drop_last)[0])

    def answers(self) -> list[list[int]]:
        """The tokens of every text that was written last, without its prompt."""
        return [ids[asked:] for ids, asked in self.written()]

    def written(self) -> list[tuple[list[int], int]]:
        """The tokens of every text that was written last, its prompt first, and how many of them are the prompt's."""
        pairs = zip(self._part(X).split(self._part(LENGTHS).tolist()), self._part(PROMPTS).tolist(), strict=True)
        return [(ids.tolist(), asked) for ids, asked in pairs]

    def places(self, step: int, size: int, drop_last: bool) -> tuple[Tensor, int]:
        """Where a step's texts, kept or not, stand among those that were written together, and the epoch."""
        at, epoch = self.schedule.at(step, size, drop_last)
        if self.schedule.every is not None:
            before = [one for one in range(self.schedule.begins(step), step) if not self.schedule.is_given(one)]
            start = sum(len(self.schedule.at(one, size, drop_last)[0]) for one in before)
            at = torch.arange(start, start + len(at))
        return at, epoch

    def _is_given(self, step: int) -> bool:
        """Whether a step is of given samples: where a gate says so, as its agent's host has told."""
        if self.schedule.gated:
            told = self._publications.get(self._keys[GIVEN])
            if told is None:
                return False  # nothing was written yet
            if told is not self._told:
                self._told = told
                self.schedule.decide(int(self._part(STEP)), self._part(GIVEN).tolist())
        return self.schedule.is_given(step)

    def _kept(self, step: int, size: int, drop_last: bool) -> tuple[Tensor, int]:
        """The same of those that are kept."""
        at, epoch = self.places(step, size, drop_last)
        return at[self._part(KEPT)[at]].to(self.device), epoch

    def _seen(self, ids: list[int], asked: int, sample: int) -> tuple[list[int], int]:
        """A text's tokens as these agents see them, and how many of them are the prompt's."""
        if self._prompt is None:
            return ids, asked
        own = self._prompt(sample)
        return own + ids[asked:], len(own)

    def _part(self, name: str) -> Tensor:
        found = self._publications.get(self._keys[name])
        assert found is not None and isinstance(found.values, Tensor)
        return found.values.cpu()

    def _texts(self) -> Encoded | None:
        """All that was written last, as tokens with what is learned of them."""
        found = self._publications.get(self._keys[X])
        if found is None:
            return None
        if found is not self._made[0]:
            self._made = found, self._encoded().to(self.device)
        return self._made[1]

    def _encoded(self) -> Encoded:
        ids = self._part(X).split(self._part(LENGTHS).tolist())
        texts = zip(ids, self._part(PROMPTS).tolist(), self._part(IDS).tolist(), strict=True)
        rows = [row(*self._seen(one.tolist(), asked, sample)) for one, asked, sample in texts]
        pairs = self._publications.get(self._keys[RIVALS]) is not None
        if pairs:
            rivals = self._part(RIVALS).tolist()
            rows = [one if at < 0 else side_by_side(one, rows[at]) for one, at in zip(rows, rivals, strict=True)]
        return Encoded.of(rows, self._pad, pack=None if pairs else self._pack)


def _below(at: Tensor) -> bool:
    """Whether positions are those of given samples: all of a step are, or none."""
    return len(at) > 0 and int(at[0]) < 0


def row(ids: list[int], prompt: int) -> Row:
    """A text of which the first so many tokens are given and all others learned. What characters they are is not told:
    objectives that ask are refused on such streams."""
    units = list(range(prompt - 1, len(ids) - 1))
    return Row(ids, units, ids[prompt:], [(0, 0)] * len(units))


def parts_of(
    texts: Sequence[tuple[list[int], int]],
    samples: Tensor,
    kept: Sequence[bool],
    given: Sequence[bool] | None,
    rewards: Sequence[float] | None = None,
    written: Sequence[Tensor] | None = None,
    rivals: Sequence[int] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Texts, each with how many tokens of it are its prompt's, and whether it is learned, as tensors by name.

    ``given``: of each step that they are for, whether it is of given samples, where a gate says so; ``rewards``: how
    right each is; ``written``: of each the log-probabilities of its answer's tokens; ``rivals``: see
    :data:`TEXT_PARTS`.
    """
    tokens = [token for ids, _ in texts for token in ids]
    lengths, prompts = [len(ids) for ids, _ in texts], [prompt for _, prompt in texts]
    more = {} if rewards is None else {REWARD: torch.tensor(rewards, dtype=torch.float32)}
    if written is not None:
        more[WRITTEN] = torch.cat([*written, torch.empty(0)])
    return torch.tensor(tokens, dtype=torch.int64), {
        **more,
        PROMPTS: torch.tensor(prompts, dtype=torch.int64),
        LENGTHS: torch.tensor(lengths, dtype=torch.int64),
        IDS: samples,
        KEPT: torch.tensor(kept, dtype=torch.bool),
        **({} if given is None else {GIVEN: torch.tensor(given, dtype=torch.bool)}),
        **({} if rivals is None else {RIVALS: torch.tensor(rivals, dtype=torch.int64)}),
    }
