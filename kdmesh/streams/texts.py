"""Texts as samples: every agent tokenises them for itself, so sample ids align agents, not tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, overload

import torch

from kdmesh.errors import MeshError
from kdmesh.streams.unread import Unread, joined

if TYPE_CHECKING:
    from torch import Tensor

LEARNED = "assistant"
"""The role whose turns are learned."""

Turn = tuple[str, str] | tuple[str, str, str]
"""A role and its words; perhaps also what else the turn has, as JSON: `{"tool_calls": [...]}`."""


class Unreadable(MeshError):
    """One sample that an agent cannot read. It is left out and counted, unless the mesh says `over: refuse`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One text, before any tokenizer: what is classified, ranked by, or what a language model learns.

    ``text`` is classified, or modelled (the completion, if there is a prompt); ``pair`` a second text, for classifying
    pairs; ``candidates`` are ranked, and ``text`` then is the query; ``prompt`` stands before the text and is not
    learned; ``messages`` are (role, content) turns, of which the assistant's are learned, perhaps with a third item,
    see :data:`Turn`; ``tools``: what the assistant may call, as JSON; ``spans`` name parts of the text for token
    classification: (start, end exclusive, tag). ``at`` says where the sample came from, for errors only:
    ``train.jsonl, line 7``; ``fault``: why nobody can read it, if nobody can. ``rejected``: a second answer to the
    prompt, to which the first is preferred: words, or, of a chat, the turn that stands in the last one's place.
    """

    text: str = ""
    pair: str | None = None
    prompt: str | None = None
    messages: tuple[Turn, ...] | None = None
    spans: tuple[tuple[int, int, str], ...] | None = None
    at: str = ""
    tools: str | None = None
    fault: str = ""
    candidates: tuple[str, ...] | None = None
    rejected: str | Turn | None = None

    def asks(self) -> str:
        """What stands before the answer: the prompt, or the words of a chat's turns before the learned one."""
        if self.messages is None:
            return self.prompt or ""
        last = len(self.messages) - (bool(self.messages) and self.messages[-1][0] == LEARNED)
        return "".join(f"{turn[1]}\n" for turn in self.messages[:last])

    @property
    def answered(self) -> bool:
        """Whether anything of it can be learned by a language model; what cannot is a prompt alone."""
        if self.messages is None:
            return bool(self.text)
        return any(turn[0] == LEARNED for turn in self.messages)

    def answers(self) -> str:
        """What the data answer, "" where they do not: the text, or a chat's last turn where that is learned."""
        if self.messages is None:
            return self.text
        return self.messages[-1][1] if self.messages and self.messages[-1][0] == LEARNED else ""


def answers_of(sample: Sample) -> tuple[Sample, Sample]:
    """The two samples of a pair: with the answer that is chosen, and with the one that is rejected."""
    chosen = replace(sample, rejected=None)
    if isinstance(sample.rejected, tuple):
        return chosen, replace(chosen, messages=(*(sample.messages or ())[:-1], sample.rejected))
    return chosen, replace(chosen, text=sample.rejected or "")


def turn_of(turn: Turn) -> dict[str, Any]:
    """A turn as chat templates are given it."""
    more: dict[str, Any] = json.loads(turn[2]) if len(turn) > 2 else {}
    return {"role": turn[0], "content": turn[1], **more}


HIDDEN = Sample(at="a private sample of another agent")
"""What a host holds in place of a sample that is not its own: empty, so that encoding it fails."""


AT_ONCE = 1024
"""Samples that are read together where all of them are looked at and they are not in memory."""


class SampleSource(Protocol):
    """Where samples are that are not in memory. ``rejects``: whether one may have a rejected answer."""

    rejects: bool

    def __len__(self) -> int:
        """How many there are."""

    def read(self, at: Sequence[int]) -> list[Sample]:
        """Those at positions, in that order: the same each time."""


class UnreadSamples(Sequence[Sample]):
    """Samples of ``sources``, one after the other, that are read when someone asks for them."""

    def __init__(self, sources: Sequence[SampleSource]) -> None:
        self.rejects = any(one.rejects for one in sources)
        self._sources = list(sources)
        self._starts = torch.tensor([0, *map(len, sources)]).cumsum(0)
        self._rows: Tensor | None = None  # of the sources, in this order; None: all
        self._blank: Tensor | None = None  # which rows of the sources are not to be read, [N] bool
        self._changes: tuple[Callable[[Sample], Sample], ...] = ()

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | list[Sample]:
        """One sample, or those of a slice."""
        if isinstance(at, slice):
            return self.read(range(*at.indices(len(self))))
        return self.read([range(len(self))[at]])[0]

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE]

    def read(self, at: Sequence[int]) -> list[Sample]:
        """Those at positions, in that order."""
        rows = torch.as_tensor(at, dtype=torch.int64)
        rows = rows if self._rows is None else self._rows[rows]
        owners = torch.searchsorted(self._starts, rows, right=True) - 1
        if self._blank is not None:
            owners[self._blank[rows]] = -1
        found = [HIDDEN] * len(rows)
        for number in [one for one in owners.unique().tolist() if one >= 0]:
            own = (owners == number).nonzero().flatten()
            samples = self._sources[number].read((rows[own] - self._starts[number]).tolist())
            for place, sample in zip(own.tolist(), samples, strict=True):
                found[place] = sample
        for change in self._changes:
            found = [one if one is HIDDEN else change(one) for one in found]
        return found

    def select(self, rows: Tensor) -> UnreadSamples:
        """Those at positions, in that order; nothing is read."""
        made = copy(self)
        made._rows = rows if self._rows is None else self._rows[rows]
        return made

    def blanked(self, mask: Tensor) -> UnreadSamples:
        """The same, of which those where ``mask [N]`` is true are :data:`HIDDEN`, and never read."""
        made = copy(self)
        hidden = torch.zeros(int(self._starts[-1]), dtype=torch.bool) if self._blank is None else self._blank.clone()
        rows = mask.nonzero().flatten()
        hidden[rows if self._rows is None else self._rows[rows]] = True
        made._blank = hidden
        return made

    def hidden(self) -> Tensor:
        """Which are :data:`HIDDEN`, ``[N]`` bool."""
        if self._blank is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return self._blank if self._rows is None else self._blank[self._rows]

    def changed(self, change: Callable[[Sample], Sample]) -> UnreadSamples:
        """The same, of which each that is read is changed."""
        made = copy(self)
        made._changes = (*self._changes, change)
        return made


class _Held:
    """Samples in memory among others that are not."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self.rejects = any(one.rejected is not None for one in samples)

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, at: Sequence[int]) -> list[Sample]:
        return [self._samples[row] for row in at]


class Texts:
    """Samples in a table's order; indexed as a tensor is, by rows, it gives texts again.

    They are in memory, or, where they are given as :class:`UnreadSamples`, read when someone asks for them.
    """

    shape = torch.Size([])
    """The shape of one sample: a text has none."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples if isinstance(samples, UnreadSamples) else tuple(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    @property
    def unread(self) -> bool:
        """Whether they are not in memory."""
        return isinstance(self._samples, UnreadSamples)

    @property
    def rejects(self) -> bool:
        """Whether one has a rejected answer; of those that are not in memory, whether one may."""
        if isinstance(self._samples, UnreadSamples):
            return self._samples.rejects
        return any(one.rejected is not None for one in self._samples)

    @overload
    def __getitem__(self, rows: int) -> Sample: ...
    @overload
    def __getitem__(self, rows: slice | Tensor) -> Texts: ...
    def __getitem__(self, rows: int | slice | Tensor) -> Sample | Texts:
        """Return one sample by its number, or the texts of rows (int64 ``[B]``, or a slice)."""
        if isinstance(rows, int):
            return self._samples[rows]
        if isinstance(self._samples, UnreadSamples):
            chosen = torch.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows.cpu()
            return Texts(self._samples.select(chosen))
        if isinstance(rows, slice):
            return Texts(self._samples[rows])
        return Texts([self._samples[row] for row in rows.tolist()])

    def changed(self, change: Callable[[Sample], Sample]) -> Texts:
        """Return the texts, each changed."""
        if isinstance(self._samples, UnreadSamples):
            return Texts(self._samples.changed(change))
        return Texts([change(one) for one in self._samples])

    def hidden(self) -> Tensor:
        """Return which samples are :data:`HIDDEN`, ``[N]`` bool."""
        if isinstance(self._samples, UnreadSamples):
            return self._samples.hidden()
        return torch.tensor([one == HIDDEN for one in self._samples], dtype=torch.bool)

    def learned(self) -> list[str]:
        """Return what is learned or classified of each sample, without prompts."""
        found = []
        for one in self._samples:
            turns = [turn[1] for turn in one.messages or () if turn[0] == LEARNED]
            found.append("\n".join(part for part in (*turns, one.text, one.pair, *(one.candidates or ())) if part))
        return found

    def read(self) -> list[str]:
        """Return all that is read of each sample, prompts and every turn too: what a tokenizer is made from."""
        found = []
        for one in self._samples:
            turns = [part for turn in one.messages or () for part in turn[1:]]
            parts = (
                one.tools,
                *turns,
                (one.prompt or "") + one.text,
                one.pair,
                *(one.candidates or ()),
                *_rejected(one),
            )
            found.append("\n".join(part for part in parts if part))
        return found

    def sizes(self) -> Tensor:
        """Return how long each sample is, ``[N]`` int64 characters, with prompts: the same for every tokenizer."""
        return torch.tensor([size_of(one) for one in self._samples], dtype=torch.int64)

    @property
    def nbytes(self) -> int:
        """About how many bytes the texts take."""
        return 4 * int(self.sizes().sum())

    def digest(self) -> bytes:
        """Return the sha256 of all samples, in order; where they came from does not count."""
        found = hashlib.sha256()
        self.hashed(found)
        return found.digest()

    def hashed(self, into: hashlib._Hash) -> None:
        """Add all samples, in order, to what becomes such a sha256."""
        for sample in self._samples:
            fields: list[Any] = [sample.text, sample.pair, sample.prompt, sample.messages, sample.spans]
            fields += [] if sample.tools is None else [sample.tools]
            fields += [] if sample.candidates is None else [sample.candidates]
            fields += [] if sample.rejected is None else [{"rejected": sample.rejected}]
            into.update(json.dumps(fields).encode() + b"\n")

    def parts(self) -> Iterator[Texts]:
        """All of them, some at a time, in memory."""
        for start in range(0, len(self), AT_ONCE):
            yield Texts(self._samples[start : start + AT_ONCE])

    def blanked(self, mask: Tensor) -> Texts:
        """Return the texts with those where ``mask [N]`` (bool) is true taken out: empty, whatever they held."""
        if isinstance(self._samples, UnreadSamples):
            return Texts(self._samples.blanked(mask))
        return Texts([HIDDEN if gone else one for one, gone in zip(self._samples, mask.tolist(), strict=True)])


def size_of(one: Sample) -> int:
    """How many characters a sample has, with prompts."""
    return (
        len(one.text)
        + len(one.pair or "")
        + len(one.prompt or "")
        + sum(len(part) for turn in one.messages or () for part in turn[1:])
        + sum(map(len, one.candidates or ()))
        + sum(map(len, _rejected(one)))
    )


def _rejected(sample: Sample) -> tuple[str, ...]:
    """The words of the answer that is rejected, where there is one."""
    if sample.rejected is None:
        return ()
    return (sample.rejected,) if isinstance(sample.rejected, str) else sample.rejected[1:]


def concatenate(parts: Sequence[Tensor | Texts | Unread]) -> Tensor | Texts | Unread:
    """Return parts of one kind, all numbers or all texts, one after the other."""
    tensors = [part for part in parts if not isinstance(part, Texts)]
    if len(tensors) == len(parts):
        kept = [part for part in tensors if isinstance(part, torch.Tensor)]
        return torch.cat(kept) if len(kept) == len(parts) else joined(tensors)
    if tensors:
        raise TypeError("texts and tensors make no common table")
    texts = [part for part in parts if isinstance(part, Texts)]
    if any(part.unread for part in texts):
        own = [part._samples for part in texts]
        return Texts(UnreadSamples([one if isinstance(one, UnreadSamples) else _Held(one) for one in own]))
    return Texts([sample for part in texts for sample in part])
