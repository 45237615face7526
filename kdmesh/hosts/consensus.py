"""A consensus at work on one host: gathers its members' signals for a batch and combines them."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from kdmesh.contracts.metric import own_classes
from kdmesh.hosts import guard
from kdmesh.imports import import_path
from kdmesh.offers import PROBABILITIES
from kdmesh.signals import Signal
from kdmesh.signals.crossing import LARGE
from kdmesh.signals.lazy import Lazy, MixedLogits, dense, leaves, narrowed
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode


class Moment(NamedTuple):
    """How far a reader's training is as it asks: the step and epoch of its phase, from 0, and the round, from 1."""

    step: int = 0
    epoch: int = 0
    round: int | None = None


class Table(NamedTuple):
    """A consensus on a whole stream at a version of the publications.

    ``mark``: of what it was combined of, if it counts.
    """

    version: int
    mark: str
    signal: Signal | None


class Consensus:
    """One rule, built once per host. ``combine`` is the only place where signals of several sources meet.

    ``strict``: what the rule gives is checked before anyone reads it.
    """

    def __init__(self, node: ConsensusNode, config: dict[str, Any], strict: bool = False) -> None:
        self.node = node
        self.rule: Any = import_path(node.factory, f"consensus.{node.name}.rule")(**config)
        self.rule.space, self.rule.temperature = node.space, node.temperature
        self.strict = strict
        self.draws = not node.factory.startswith(guard.OURS)  # random numbers, perhaps: ours draw none
        self.prefix = False  # whether members may have more columns than are compared, which stand first
        self.width = 0  # columns of what it gives, where members know different classes
        self.shapes: tuple[torch.Size, ...] = ()  # of what informs it, without the batch axis
        self.timed: Callable[[Any], Any] | None = None  # counts calls of the rule, where that is asked for
        self.release: Callable[..., tuple[Tensor, Tensor]] | None = None  # how it answers where it does with noise
        self.when = ""  # at which publication it is asked, where that costs
        self.nested: list[Consensus] = []  # members that are consensus nodes themselves
        self.tables: dict[str | None, Table] = {}  # by variant
        self.asked: dict[str | None, Moment] = {}  # when it was last asked: by reader, or by all where they share it

    @property
    def abstains(self) -> bool:
        """Whether samples may go without an answer, also because members of its own abstain."""
        return self.node.abstains or any(inner.abstains for inner in self.nested)

    @property
    def timely(self) -> bool:
        """Whether what it says depends on how far its reader's training is, also by members of its own."""
        return self.node.timely or any(inner.timely for inner in self.nested)

    @property
    def keeps(self) -> bool:
        """Whether what it has said of a whole stream is not what it would say of it now."""
        return self.node.stateful or self.node.timely or bool(self.node.renewed)

    def eval_copy(self) -> Consensus:
        """The same with a copy of its rule, in eval mode: what is asked of it moves no state of this one."""
        other = copy.copy(self)
        other.rule = copy.deepcopy(self.rule).eval()
        return other

    def variant(self, reader: str | None) -> str | None:
        """The reader, where it has a version of its own (leave-one-out, per-target or by its time, here or nested);
        else None."""
        node = self.node
        leaves = (
            node.per_target
            or (not node.owned and (node.timely or (reader in node.renewed and not node.stepwise)))
            or (not node.include_self and reader is not None and any(edge.source == reader for edge in node.members))
            or any(inner.variant(reader) is not None for inner in self.nested)
        )
        return reader if leaves else None

    def note(self, reader: str, now: Moment | None) -> None:
        """Keep when a reader asked, where what is said depends on that."""
        if self.node.timely and now is not None:
            self.asked[None if self.node.owned else reader] = now

    def gather(
        self, reader: str | None, fetch: Callable[[Edge], Signal | None]
    ) -> tuple[list[Signal | None], Tensor | None] | None:
        """Fetch the members' signals and which are present ``[M, B]`` (None for all); None where none has published.

        Under leave-one-out a reader's own signal counts as absent.
        """
        alone = None if self.node.include_self else reader
        signals = [None if edge.source == alone else fetch(edge) for edge in self.node.members]
        known = [signal for signal in signals if signal is not None]
        if not known:
            return None
        if len(known) == len(signals) and all(signal.weights is None for signal in known):
            return signals, None
        like = known[0].value
        everyone = torch.ones(len(like), dtype=torch.bool, device=like.device)
        rows = [
            ~everyone if signal is None else everyone if signal.weights is None else signal.weights != 0
            for signal in signals
        ]
        return signals, torch.stack(rows)

    def combine(
        self,
        reader: str | None,
        fetch: Callable[[Edge], Signal | None],
        given: Mapping[str, Any] | None = None,
        seed: int | None = None,
        look: bool = True,
    ) -> Signal | None:
        """Combine the members' outputs for a batch; samples that no member has an output for, or that the rule does
        not answer, get weight 0.

        ``given``: what the rule asks of the batch, by keyword: see :func:`kdmesh.hosts.rules.facts`. ``seed``: of what
        it draws for rows that are made later; who calls has seeded what it draws now. ``look``: whether the numbers
        that a plugin's rule gives are looked at, too: then a device is waited for.
        """
        gathered = self.gather(reader, fetch)
        if gathered is None:
            return None
        signals, present = gathered
        facts = self._own({"present": present, **(given or {})}, len(signals))
        present, node = facts["present"], self.node
        more: dict[str, Any] = {"target": reader} if node.per_target else {}
        more |= self.given(fetch)
        value: Tensor | Lazy
        answered: Tensor | None = None
        alike = not more and not node.needs_errors and all(edge.classes is None for edge in node.members)
        if not alike or not any(signal is not None and isinstance(signal.value, Lazy) for signal in signals):
            value, answered = self._now(self.stack(signals), {**facts, **more}, look)
        elif node.eager:
            value, answered = self._in_parts(signals, facts, seed)
        else:
            value = self._later(signals, facts, seed)
        rows = _both(present, answered)
        form = node.members[0].form if node.unaligned else node.space
        return Signal(value, form, None if rows is None else rows.to(value.dtype))

    def _now(self, logits: Tensor, facts: dict[str, Any], look: bool = False) -> tuple[Tensor, Tensor | None]:
        """Apply the rule to logits ``[M, B, C]``; the values, and which rows it answered ``[B]``, None for all."""
        node = self.node
        values = probabilities(logits, node.space, node.temperature)
        if self.release is not None:
            about = [f"{self.when}/{node.stream}/{number}" for number in facts["ids"].tolist()]
            return self.release(self.rule, values, facts["present"], about)
        forward = self.rule.forward if self.timed is None else self.timed(self.rule.forward)
        before = guard.marks(facts.values())
        value, answered = guard.answers(forward(values, logits=logits, **facts), node.abstains)
        guard.refuse_values(value, values.shape[1:], values, values.requires_grad or node.trained)
        if (after := guard.marks(facts.values())) != before:
            guard.refuse_worked_on(facts, before, after)
        if self.strict:
            rows = _both(facts["present"], answered)
            weights = None if rows is None else rows.to(value.dtype)
            refuse_improper(value, values.shape[1:], node.space, weights, values.isneginf().any(0))
        elif look and self.draws:
            rows, known = _both(facts["present"], answered), numbers(values.transpose(0, 1))
            refuse_made(value, node.space, known if rows is None else known & rows)
        return value, answered

    def _in_parts(
        self, signals: list[Signal | None], facts: dict[str, Any], seed: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """The same of logits that are not made yet, a few rows at a time, each once."""
        parts = []
        for start, logits, here in self._chunks(signals, facts):
            with nullcontext() if seed is None else guard.seeded(mix(seed, start)):
                parts.append(self._now(logits, here))
        full = [torch.ones(len(v), dtype=torch.bool, device=v.device) if a is None else a for v, a in parts]
        return torch.cat([value for value, _ in parts]), torch.cat(full) if self.node.abstains else None

    def _later(self, signals: list[Signal | None], facts: dict[str, Any], seed: int | None) -> Lazy:
        """The same of logits that are not made yet: when rows are asked for, of these rows."""
        whole = [None if signal is None else self._logits(signal) for signal in signals]
        known = [value for value in whole if value is not None]

        def make(chunks: list[Tensor], where: slice | Tensor) -> Tensor:
            remaining = iter(chunks)
            rows = [torch.zeros_like(chunks[0]) if value is None else next(remaining) for value in whole]
            here = {name: fact[..., where] if isinstance(fact, Tensor) else fact for name, fact in facts.items()}
            if seed is None:
                return self._now(torch.stack(rows), here)[0]
            with guard.seeded(mix(seed, where.start if isinstance(where, slice) else fingerprint(where))):
                return self._now(torch.stack(rows), here)[0]

        return MixedLogits(known, make)

    def _own(self, facts: dict[str, Any], members: int) -> dict[str, Any]:
        """Labels as columns of members that all know the same classes; samples of other classes have none."""
        labels, present, classes = facts.get("labels"), facts["present"], self.node.labels
        if labels is None or classes is None:
            return facts
        own, known = own_classes(labels, classes)
        known = known.expand(members, -1)
        return {**facts, "labels": own, "present": known if present is None else present & known}

    def weigh(self, signals: list[Signal | None], facts: dict[str, Any], look: bool = True) -> Tensor:
        """The rule's coefficients ``[M, B]`` of the members, a few rows at a time where logits are not made yet.

        ``look``: whether their numbers are looked at, too.
        """
        parts = []
        weights = self.rule.weights if self.timed is None else self.timed(self.rule.weights)
        for _, logits, here in self._chunks(signals, self._own(facts, len(signals))):
            before = guard.marks(here.values())
            part = weights(logits, **here)
            guard.refuse_values(part, logits.shape[:2], logits, self.node.trained)
            if (after := guard.marks(here.values())) != before:
                guard.refuse_worked_on(here, before, after)
            if look:
                guard.refuse_below_0(part, "weights")
                if self.draws:
                    refuse_shares(part, here["present"])
            parts.append(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _chunks(
        self, signals: list[Signal | None], facts: dict[str, Any]
    ) -> Iterator[tuple[int, Tensor, dict[str, Any]]]:
        """The first row, logits ``[M, n, C]`` and facts of some rows; all together where logits are made already."""
        values = [None if signal is None else self._logits(signal) for signal in signals]
        like = next(value for value in values if value is not None)
        step = max(1, LARGE // like.shape[1]) if isinstance(like, Lazy) else max(1, len(like))
        for start in range(0, max(1, len(like)), step):
            stop = min(start + step, len(like))
            rows = [_rows(value, like, start, stop) for value in values]
            here = {
                name: fact[..., start:stop] if isinstance(fact, Tensor) and step < len(like) else fact
                for name, fact in facts.items()
            }
            yield start, torch.stack(rows), here

    def given(self, fetch: Callable[[Edge], Signal | None]) -> dict[str, list[Tensor | None]]:
        """What informs the rule beside what it combines."""
        if not self.node.given:
            return {}
        signals = [fetch(edge) for edge in self.node.given]
        return {"inputs": [None if signal is None else dense(signal.value) for signal in signals]}

    def stack(self, signals: list[Signal | None]) -> Tensor:
        """Logits ``[M, B, C]``, zeros where a source has not published, ``-inf`` at classes that it does not know."""
        values = [None if signal is None else dense(self._logits(signal)) for signal in signals]
        values = [
            None if value is None else spread(value, edge.classes, self.width)
            for value, edge in zip(values, self.node.members, strict=True)
        ]
        like = next(value for value in values if value is not None)
        return torch.stack([torch.zeros_like(like) if value is None else value for value in values])

    def _logits(self, signal: Signal) -> Tensor | Lazy:
        """A member's logits; of another consensus' probabilities those that give them at this temperature."""
        if signal.form not in PROBABILITIES:
            return narrowed(signal.value, self.width) if self.prefix else signal.value
        return sharpened(signal.value, self.node.temperature, signal.form)

    def renew(self, reader: str) -> None:
        """Make it anew for a reader when it next asks."""
        self.tables.pop(self.variant(reader), None)

    def table(
        self,
        reader: str | None,
        version: int,
        make: Callable[[], Signal | None],
        mark: Callable[[], str] | None = None,
    ) -> Signal | None:
        """The consensus on a whole stream, kept until a publication changes it, or, where its reader declares a period,
        until :meth:`renew`.

        ``mark``: of what is combined, for a rule that keeps count: it is asked again where that has changed alone, so
        that a run that is taken up again, where all is published anew, asks it as often as an unbroken one.
        """
        key = self.variant(reader)
        known = self.tables.get(key)
        if known is not None and known.signal is not None and reader in self.node.renewed:
            return known.signal
        if known is not None and known.version == version:
            return known.signal
        of = "" if mark is None else mark()
        same = known is not None and mark is not None and known.mark == of
        found = self.tables[key] = Table(version, of, known.signal if known is not None and same else make())
        return found.signal


def _both(present: Tensor | None, answered: Tensor | None) -> Tensor | None:
    """Which rows ``[B]`` some source is present in and the rule answers; None for all."""
    here = None if present is None else present.any(0)
    return here if answered is None else answered if here is None else here & answered


def fingerprint(*values: Tensor | Lazy | None) -> str:
    """A text that depends on every bit of some values and on nothing else."""
    digest = blake2b(digest_size=16)
    for value in values:
        if isinstance(value, MixedLogits):
            digest.update(fingerprint(value.index, *value.sources).encode())
        elif value is not None:
            for part in leaves(value):
                digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        digest.update(b";")
    return digest.hexdigest()


def probabilities(logits: Tensor, space: str, temperature: float) -> Tensor:
    """What is combined of logits ``[M, B, C]``: their probabilities at a temperature, or in other spaces themselves."""
    if space == "probs":
        return (logits / temperature).softmax(-1)
    return (logits / temperature).sigmoid() if space == "marginals" else logits


def sharpened(probs: Tensor | Lazy, temperature: float, form: str) -> Tensor | Lazy:
    """The logits that give such probabilities at a temperature."""

    def log(values: Tensor) -> Tensor:
        tiny = torch.finfo(values.dtype).tiny
        logs = values.clamp_min(tiny).log()
        return (logs if form == "probs" else logs - (1 - values).clamp_min(tiny).log()) * temperature

    return MixedLogits([probs], lambda chunks, where: log(chunks[0])) if isinstance(probs, Lazy) else log(probs)


def _rows(value: Tensor | Lazy | None, like: Tensor | Lazy, start: int, stop: int) -> Tensor:
    """Some rows of a member's logits; zeros for one that has not published."""
    if value is None:
        return torch.zeros(stop - start, like.shape[1], dtype=like.dtype, device=like.device)
    return value.rows(start, stop) if isinstance(value, Lazy) else value[start:stop]


def spread(value: Tensor, classes: Sequence[int] | None, width: int) -> Tensor:
    """Logits of the classes that a source knows among all ``width``: ``-inf`` at the rest."""
    if classes is None:
        return value
    whole = value.new_full((*value.shape[:-1], width), float("-inf"))
    return whole.index_copy(-1, torch.tensor(classes, device=value.device), value)


def refuse_improper(
    value: Any, shape: torch.Size, space: str, weights: Tensor | None, ruled_out: Tensor | None = None
) -> None:
    """Raise ValueError for what is no signal ``[B, C]``, is not finite, in space `probs` no distribution, in
    space `marginals` no probabilities.

    Samples of weight 0 may hold anything, and logits that a source has as ``-inf`` (``ruled_out [B, C]``) the same.
    """
    if not isinstance(value, Tensor) or value.shape != shape:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"it gave {found}, not a tensor of shape {tuple(shape)}")
    whole = value.detach() if ruled_out is None else value.detach().masked_fill(ruled_out & value.isneginf(), 0.0)
    rows = whole if weights is None else whole[weights != 0]
    if not rows.isfinite().all():
        raise ValueError(f"it gave {int((~rows.isfinite()).sum())} values that are not finite")
    if space == "marginals" and rows.numel() and not 0 <= rows.min().item() <= rows.max().item() <= 1:
        raise ValueError(f"it gave no probabilities: values are {rows.min().item():.4g} to {rows.max().item():.4g}")
    if space == "probs" and rows.numel():
        low, off = rows.min().item(), (rows.float().sum(-1) - 1).abs().max().item()
        if low < 0 or off > close(rows):
            raise ValueError(f"it gave no distribution: the least value is {low:.4g}, a sum is off from 1 by {off:.4g}")


def close(values: Tensor) -> float:
    """How far a sum that is to be 1 may be off; in half precision rounding alone takes it further."""
    return max(1e-3, torch.finfo(values.dtype).eps)


def refuse_made(value: Any, form: str, known: Tensor) -> None:
    """Raise ValueError for what plugins made ``[B, C]`` that is not what its ``form`` says.

    ``known [B]`` bool: the rows that count, and of which all that it is made of are numbers.
    """
    if form in PROBABILITIES and isinstance(value, Tensor):
        refuse_improper(value, value.shape, form, known)


def numbers(values: Tensor) -> Tensor:
    """Which rows of ``[B, ...]`` hold numbers alone, or -inf, which rules a class out; ``[B]`` bool."""
    return ~(values.isnan() | values.isposinf()).flatten(1).any(1)


def refuse_shares(weights: Tensor, present: Tensor | None) -> None:
    """Raise ValueError for a plugin's coefficients ``[M, B]`` that do not sum to 1 where some source is present."""
    total = (weights if present is None else weights.masked_fill(~present, 0)).detach().float().sum(0)
    here = total if present is None else total[present.any(0)]
    if here.numel() and (here - 1).abs().max().item() > close(weights):
        low, high = here.min().item(), here.max().item()
        raise ValueError(f"its weights sum to {low:.4g} to {high:.4g} over the sources of a row, not to 1")
