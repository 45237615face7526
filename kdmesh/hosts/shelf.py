"""The store as one host uses it: where it is, how often it had what was asked for, and what is not kept there."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from kdmesh.store import Store
from kdmesh.streams.contents import digests

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.hosts.loader import ShardView


@dataclass
class Hits:
    """What an agent was asked for and the store had, counted in rows (samples, each in one view).

    ``found``: rows that it had, ``foreign`` of them from another machine or with other settings; ``forwarded``: rows
    that were not there, ``written`` of them kept; ``read`` and ``kept``: their bytes; ``forwards`` and ``seconds``:
    of the agent that what was found has spared.
    """

    found: int = 0
    foreign: int = 0
    forwarded: int = 0
    written: int = 0
    read: int = 0
    kept: int = 0
    forwards: int = 0
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**vars(self), "seconds": round(self.seconds, 3)}


class Told(TypedDict):
    """What a host says of the store: see :class:`Shelf`; ``agents``: :meth:`Hits.record` by agent.

    ``folder``: where it is, "" for a URL, ``node``: on what machine.
    """

    agents: dict[str, dict[str, Any]]
    left: dict[str, str]
    elsewhere: list[str]
    notes: list[str]
    unread: list[str]
    folder: str
    node: str


@dataclass
class Shelf:
    """A store, and what a host remembers of it.

    ``hits``: by agent; ``left``: by agent, why its answers are not kept; ``elsewhere``: in words, on what rows of
    others were computed that were read here.
    """

    store: Store
    hits: dict[str, Hits] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, None] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)  # by owner of weights that do not change: identity
    weights: dict[str, str] = field(default_factory=dict)  # of these: sha256
    signs: dict[str, str] = field(default_factory=dict)  # by owner, the sum of all that its model is made from
    sound: dict[tuple[str, ...], str] = field(default_factory=dict)  # what is wrong with answers, "" for nothing
    digests: dict[int, tuple[Any, Tensor]] = field(default_factory=dict)  # of a view's samples, with that view

    @classmethod
    def open(cls, where: str, limit: int | None) -> Shelf | None:
        """The store in a folder or at a URL; None for none."""
        return cls(Store.open(where, limit_bytes=limit)) if where else None

    def told(self, unread: list[str]) -> Told:
        """What there is to say of it. ``unread``: agents whose weights nobody needed."""
        hits = {agent: one.record() for agent, one in self.hits.items()}
        return {
            "agents": hits,
            "left": self.left,
            "elsewhere": [*self.elsewhere],
            "notes": self.store.notes,
            "unread": unread,
            "folder": str(self.store.path) if self.store.place == str(self.store.path) else "",
            "node": socket.gethostname(),
        }

    def digests_of(self, shard: ShardView) -> Tensor:
        """The digests of a view's samples, ``[n, 16]`` uint8, made once."""
        if self.digests.get(id(shard), (None,))[0] is not shard:
            self.digests[id(shard)] = shard, digests(shard.x)
        return self.digests[id(shard)][1]

    def of(self, agent: str) -> Hits:
        """What is counted of an agent."""
        return self.hits.setdefault(agent, Hits())
