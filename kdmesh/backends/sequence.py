"""Sequence numbers: every queued call carries the incarnation of its host and its own number there.

A host takes only its next call. So an update is never applied behind one that is missing: a call whose input failed is
not made, its number stays the next, and all that were queued behind it are refused. A call that raised closes the fence
as well. A host that is opened anew has another incarnation, and refuses what was queued for the one before.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kdmesh.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

SequenceNumber = tuple[int, int]  # incarnation, number of the call on its host: from 1


class Refused(RunFailed):
    """A call came to a host that has been opened anew since."""


class Missing(Refused):
    """A call came and the one before it did not, or had no input. Why, the host does not know."""


class Sequencer:
    """Numbers the calls of the driver."""

    def __init__(self) -> None:
        self.incarnation = 0
        self._taken: Counter[str] = Counter()

    def renew(self) -> int:
        """All hosts are opened anew; returns their incarnation."""
        self.incarnation += 1
        self._taken.clear()
        return self.incarnation

    def take(self, host: str) -> SequenceNumber:
        """The sequence number of the next call of a host."""
        self._taken[host] += 1
        return self.incarnation, self._taken[host]


class Fence:
    """Admits the calls of one incarnation of a host in their order, and refuses any other."""

    def __init__(self, host: str, incarnation: int) -> None:
        self.host, self.incarnation = host, incarnation
        self.done = 0
        self.cause: BaseException | None = None

    @contextmanager
    def admit(self, sequence_number: SequenceNumber) -> Iterator[None]:
        """Make a call inside. Raises the first cause where a call failed before, Refused where another one is next."""
        incarnation, number = sequence_number
        if incarnation != self.incarnation:
            what = f"a call of incarnation {incarnation}: this is incarnation {self.incarnation}"
            raise Refused(f"{self.host} refuses {what}", where=f"placement.{self.host}")
        if self.cause is not None:
            raise self.cause
        if number != self.done + 1:
            what = f"call {number}: the next one is call {self.done + 1}, which did not come or had no input"
            raise Missing(f"{self.host} refuses {what}", where=f"placement.{self.host}")
        try:
            yield
        except BaseException as error:
            self.cause = error
            raise
        self.done = number
