"""Texts that a writer wrote before: kept in the store by batch, so that they are those that it would write again.

What is written from a prompt depends on the other prompts of its batch as far as rounding goes. So a text is found by
its whole batch: the prompts' tokens, in order, and the seeds of what is drawn.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.hosts.identity import Unknown, code
from kdmesh.hosts.store_keys import made_by
from kdmesh.hosts.stored import SECONDS, cost
from kdmesh.store import EntryKey, Fingerprint
from kdmesh.streams.contents import DIGEST
from kdmesh.streams.tokens import starts_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.shelf import Shelf
    from kdmesh.hosts.state import HostState
    from kdmesh.spec import SamplingSpec
    from kdmesh.text.encoder import Encoder

TOKENS = "tokens"
CODE = ("kdmesh.text.generate", "kdmesh.text.model")


def memory(
    host: HostState,
    agent: Agent,
    stream: str,
    how: SamplingSpec,
    encoder: Encoder,
    ends: Collection[int],
    rows: int,
    finished: bool = False,
) -> WrittenTexts | None:
    """What a writer wrote before; None where nothing is kept: its weights change as it writes, or why not is noted.

    ``finished``: whether they no longer change although they did.
    """
    plan, shelf = host.plan, host.shelf
    still = plan.spec.agents[plan.owner[agent.name]].update == "frozen"
    if shelf is None or not (still or finished):
        return None
    if host.streams[stream].private:
        shelf.left.setdefault(agent.name, f"what it writes to private samples ({stream}) leaves no trace")
        return None
    writer = {
        "sampling": how.model_dump(mode="json", exclude={"samples"}),
        "ends": sorted(ends),
        "tokenizer": encoder.key,
        "pad": encoder.pad,
    }
    try:
        producer = {
            **made_by(host, agent),
            "writer": {**writer, "code": code(CODE)},
            "precision": agent.weights.settings.precision,
            "forward_size": rows,
        }
    except Unknown as why:
        shelf.left.setdefault(agent.name, str(why))
        return None
    return WrittenTexts(shelf, agent, EntryKey(producer, {"output": "texts"}), how, plan.spec.name)


class WrittenTexts:
    """The texts of one writer, as batches: see :class:`kdmesh.text.generate.Memory`."""

    def __init__(self, shelf: Shelf, agent: Agent, key: EntryKey, how: SamplingSpec, mesh: str) -> None:
        self._shelf, self._hits, self._greedy = shelf, shelf.of(agent.name), how.greedy
        self._entry = shelf.store.entry(key, {"agent": agent.name, "mesh": mesh})
        self._here = Fingerprint.here(agent.device, agent.weights.settings.threads)

    def find(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[list[int]] | None:
        """What was written to a batch; None where it was not, or not all of it is there."""
        rows = self._rows(prompts, seeds)
        told = self._entry.find(rows, self._here)
        if not bool(told.found.all()):
            return None
        values, starts = self._entry.read(rows)
        assert starts is not None
        hits, tokens = self._hits, values[TOKENS]
        found = [part.tolist() for part in tokens.split(starts.diff().tolist())]
        hits.found += len(rows)
        hits.foreign += int(told.foreign.sum())
        hits.read += tokens.numel() * tokens.element_size()
        hits.forwards += max(map(len, found))
        hits.seconds += len(rows) * cost(self._entry)
        self._shelf.elsewhere.update(dict.fromkeys(other.differs(self._here) for other in told.elsewhere))
        return found

    def keep(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], texts: Sequence[list[int]], seconds: float
    ) -> None:
        """Keep what was written to a batch, and took so many seconds."""
        tokens = torch.tensor([token for text in texts for token in text], dtype=torch.int32)
        starts = starts_of(torch.tensor([len(text) for text in texts]))
        self._entry.info.setdefault(SECONDS, seconds / len(texts))
        written = self._entry.write(self._rows(prompts, seeds), {TOKENS: tokens}, starts, self._here)
        self._hits.forwarded += len(texts)
        self._hits.written += written
        self._hits.kept += 4 * len(tokens) * written // len(texts)

    def _rows(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> Tensor:
        """A digest of each text: of its batch, and of its place there."""
        told: Any = [[list(prompt) for prompt in prompts], [] if self._greedy else list(seeds)]
        batch = blake2b(json.dumps(told).encode(), digest_size=DIGEST).digest()
        rows = [blake2b(batch + at.to_bytes(4, "little"), digest_size=DIGEST).digest() for at in range(len(prompts))]
        return torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).view(-1, DIGEST)
