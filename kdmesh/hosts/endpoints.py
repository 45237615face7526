"""Agents behind endpoints on this host: how they are asked, what they answered before, and what it has cost."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from kdmesh.endpoints.asking import Asker
from kdmesh.endpoints.client import Client
from kdmesh.endpoints.journal import Journal
from kdmesh.endpoints.served import Served
from kdmesh.errors import RunFailed
from kdmesh.files import inside
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.store import EntryKey, Fingerprint
from kdmesh.store.signals import read_texts, write_texts
from kdmesh.streams.contents import DIGEST
from kdmesh.streams.texts import Texts
from kdmesh.text.api import ApiModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from kdmesh.hosts.shelf import Shelf
    from kdmesh.hosts.state import HostState
    from kdmesh.spec import TrainSpec


class Asked(TypedDict):
    """What an agent behind an endpoint was asked: ``requests`` and ``tokens`` of the whole run, with what a look at the
    endpoint took; ``sent``, ``repeated`` and ``found`` (answers that were there before) since this process began."""

    model: str
    build: str
    requests: int
    tokens: int
    sent: int
    repeated: int
    found: int
    seconds: float
    spent: str
    notes: list[str]


class ServedWeights(LocalWeights):
    """In the place of weights that are elsewhere: what tells them from others is what is served, and by whom."""

    def __init__(
        self, name: str, module: nn.Module, settings: TrainSpec, identity: dict[str, Any], kept: Kept | None
    ) -> None:
        super().__init__(name, module, settings)
        self._identity, self.kept = identity, kept

    def sha256(self) -> str:
        """The sha256 of endpoint, model and build."""
        return hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()


class Kept:
    """The answers of one served model in a store; see :class:`kdmesh.endpoints.asking.Memory`."""

    def __init__(self, shelf: Shelf, key: EntryKey, agent: str, mesh: str) -> None:
        self._store, self._key = shelf.store, key
        self._entry = self._store.entry(key, {"agent": agent, "mesh": mesh})
        self._here = Fingerprint.here(threads=1)  # where an answer was received is nothing to it

    def find(self, digests: Sequence[str]) -> dict[str, dict[str, object]]:
        """The answers that are there."""
        if not digests:
            return {}
        rows = _rows(digests)
        there = self._entry.find(rows, self._here).found
        texts = read_texts(self._entry, rows[there])
        names = [name for name, is_there in zip(digests, there.tolist(), strict=True) if is_there]
        return {name: json.loads(text) for name, text in zip(names, texts, strict=True)}

    def keep(self, replies: dict[str, dict[str, object]]) -> None:
        """Write answers."""
        write_texts(self._entry, _rows([*replies]), [json.dumps(one) for one in replies.values()], self._here)

    def others(self) -> list[str]:
        """Answers of the same endpoint that are not taken, for another build or model gave them, in words."""
        mine, found = self._key.producer, []
        for one in self._store.entries():
            other = {} if one.key is None or one.key.signal != self._key.signal else one.key.producer
            if other != mine and all(other.get(name) == mine[name] for name in ("endpoint", "asked")):
                apart = sorted(name for name in {*mine, *other} if mine.get(name) != other.get(name))
                said = ", ".join(f"{name} {other.get(name) or 'unknown'}" for name in apart)
                found.append(f"the store has {one.rows:,} answers of another model there ({said}), which are not taken")
        return found


def _rows(digests: Sequence[str]) -> Tensor:
    data = b"".join(bytes.fromhex(one)[:DIGEST] for one in digests)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, DIGEST)


def identity(module: ApiModel, served: Served) -> dict[str, Any]:
    """What tells answers of one served model from those of others."""
    config = module.config
    told: dict[str, Any] = {"endpoint": config.base_url, "asked": config.model, **served.identity}
    return {**told, "sha256": config.sha256} if config.sha256 is not None else told


def weights(host: HostState, owner: str, module: nn.Module) -> ServedWeights | None:
    """In the place of an agent's weights, where its model is behind an endpoint: it is ready to be asked."""
    if not isinstance(module, ApiModel) or owner in host.config.modules:
        return None
    plan, settings = host.plan, host.plan.train(owner)
    served = Served(**host.config.served[owner])
    told = identity(module, served)
    journal = Journal(_journal(host, owner), module.config.budget, owner)
    journal.serves({key: str(value) for key, value in told.items()})
    journal.before(served.record())
    key = EntryKey(told, {"output": "answers"})
    kept = None if host.shelf is None else Kept(host.shelf, key, owner, plan.spec.name)
    module.asker = Asker(Client(module.config, journal, owner), served, kept)
    module.named = Places(host, owner)
    module.requires_grad_(False).eval()
    return ServedWeights(owner, module, settings, told, kept)


def _journal(host: HostState, owner: str) -> Path | None:
    """The file of what is sent; None in a run without a folder."""
    if not host.config.journals:
        return None
    folder = Path(host.config.journals)
    if not folder.parent.is_dir():
        raise RunFailed(
            f"{owner} is asked on a machine that does not see the run's folder, {folder.parent}: its budget could not "
            "be kept",
            where="placement",
            instead=f"{owner} on a machine with that folder",
        )
    return inside(folder, f"{owner}.jsonl")


class Places:
    """Says of what sample a text is, and of which streams, for errors."""

    def __init__(self, host: HostState, owner: str) -> None:
        self._host, self._owner = host, owner

    def __call__(self, text: str | Sequence[int]) -> str:
        """``, for train.jsonl, line 7, of the stream 'train'``."""
        host = self._host
        assert isinstance(host.table.x, Texts)
        if not isinstance(text, str):
            text = str(host.reading.encoder(self._owner).tokenizer.decode(list(text), skip_special_tokens=True))
        for row, sample in enumerate(host.table.x):
            if text in (sample.text, f"{sample.prompt or ''}{sample.text}"):
                streams = [name for name, one in host.streams.items() if bool((one.rows == row).any())]
                of = f", of the stream {streams[0]!r}" if streams else ""
                return f", for {sample.at or f'sample {row}'}{of}"
        return f", for the text {text[:40]!r}"


def told(host: HostState) -> dict[str, Asked]:
    """What agents of this host were asked."""
    found: dict[str, Asked] = {}
    for owner, own in host.weights.items():
        module = own.module
        if not isinstance(module, ApiModel) or module.asker is None:
            continue
        asker, journal, tally = module.asker, module.asker.client.journal, module.asker.client.tally
        found[owner] = {
            "model": asker.served.model,
            "build": asker.served.build,
            "requests": journal.requests,
            "tokens": journal.tokens,
            "sent": tally.requests,
            "repeated": tally.repeated,
            "found": tally.found,
            "seconds": round(tally.seconds, 3),
            "spent": journal.told(),
            "notes": _notes(owner, module, asker, getattr(own, "kept", None)),
        }
    return found


def _notes(owner: str, module: ApiModel, asker: Asker, kept: Kept | None) -> list[str]:
    """What whoever reads figures of an agent, or pays for it, must know."""
    notes = [f"{owner}: {text}" for text in module.noticed()]
    if kept is not None and asker.client.tally.requests:
        notes += [f"{owner}: {text}" for text in kept.others()]
    if len(asker.builds) > 1:
        notes.append(f"{owner} was answered by {len(asker.builds)} builds of its server: {', '.join(asker.builds)}")
    return notes
