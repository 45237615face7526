"""Steps of DP-SGD on a party's account: drawn, charged, and only then made with noise, all by the party's secret.

Which samples a step has is nobody's to know but the party's: it is what makes steps so cheap. So the draw is made of
the secret, as the noise is, and by the same means (:mod:`kdmesh.privacy.keys`): the mesh's seed, which all know,
decides neither.

A block of steps is charged before the first of them is released. Beside the ledger stands a journal for each agent
(``steps/...``): a line for each step that was released, with the tag of its sum, on the disk before the noise is drawn.
A step that is made again, after a kill say, has the same sum where it is made as before, then the same noise, and costs
nothing. Where the sum is another it is refused: the two could be subtracted. So a kill leaves steps that were charged
and not released, a block at most, and none that was released and not charged.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kdmesh import files
from kdmesh.errors import MeshError
from kdmesh.privacy.ledger import Charge, hold
from kdmesh.privacy.mechanisms import dp_sgd

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.privacy.keys import Secret
    from kdmesh.privacy.ledger import Account, Ledger
    from kdmesh.privacy.mechanisms.dp_sgd import DPSGD

BLOCK = 100  # steps that are charged at a time
FOLDER = "steps"
_FIRST = b"steps of DP-SGD that were released: name, tag of the sum\n"
_NAMED = 32  # hexadecimal digits


class Steps(Protocol):
    """Where an agent's steps come from."""

    def draw(self, where: str, step: int, count: int) -> np.ndarray:
        """The places of those samples, of so many, that take part in a step."""

    def seed(self, where: str, step: int) -> int:
        """A seed of 63 bits for what else is drawn by the sample in a step, as dropout."""

    def release(self, where: str, step: int, last: int, total: np.ndarray) -> np.ndarray:
        """A sum with noise, in steps of the grid, once it is charged for. ``last``: the phase's last step."""


@dataclass
class Rehearsed:
    """Steps that nobody is told, on no account."""

    secret: Secret
    mechanism: DPSGD
    mesh: str = "rehearsal"
    agent: str = ""

    def draw(self, where: str, step: int, count: int) -> np.ndarray:
        """See :class:`Steps`."""
        words = self.secret.words(count, "draw", self.mesh, self.mechanism.purpose, self._name(where, step))
        return dp_sgd.chosen(words, self.mechanism.rate)

    def seed(self, where: str, step: int) -> int:
        """See :class:`Steps`."""
        return int(self.secret.words(1, "seed", self.mesh, self.mechanism.purpose, self._name(where, step))[0]) >> 1

    def release(self, where: str, step: int, last: int, total: np.ndarray) -> np.ndarray:
        """See :class:`Steps`."""
        return self._noised(self._name(where, step), total)

    def _name(self, where: str, step: int) -> str:
        return dp_sgd.names(self.agent, where, [step])[0]

    def _tag(self, name: str, total: np.ndarray) -> str:
        return self.secret.tag(total.astype("<i8").tobytes(), self.mesh, self.mechanism.purpose, name)

    def _noised(self, name: str, total: np.ndarray) -> np.ndarray:
        query, about = (name, self._tag(name, total)), (self.mesh, self.mechanism.purpose)
        made: np.ndarray = total + self.secret.noise(self.mechanism.sigma, len(total), *about, [query]).steps[0]
        return made


def charged(mechanism: DPSGD, names: Iterable[str], noise_by: str, mesh: str) -> Charge:
    """What steps of some names are charged as."""
    cost, queries = mechanism.costs(1), dict.fromkeys(names, "")
    return Charge(dp_sgd.NAME, {}, cost.sensitivity, cost.sigma, noise_by, mesh, queries, cost.rate)


def paid(account: Account, purpose: str, agent: str) -> int:
    """How many steps of an agent were charged."""
    charges = [line.charge.queries for line in account.lines if line.charge.purpose == purpose]
    return sum(one.startswith(f"{agent}, ") for queries in charges for one in queries)


@dataclass
class Charged(Rehearsed):
    """Steps on an account.

    ``folder``: the party's; ``ledger``: opens its ledger; ``noise_by``: the party.
    """

    folder: Path = field(kw_only=True)
    ledger: Callable[[], AbstractContextManager[Ledger]] = field(kw_only=True)
    noise_by: str = field(kw_only=True)
    _paid: set[str] = field(default_factory=set, init=False)
    _released: dict[str, str] = field(default_factory=dict, init=False)
    _read: int = field(default=0, init=False)

    @property
    def journal(self) -> Path:
        """The file of these steps."""
        about = "\n".join([self.mesh, self.mechanism.purpose, self.agent])
        return self.folder / FOLDER / hashlib.sha256(about.encode()).hexdigest()[:_NAMED]

    def release(self, where: str, step: int, last: int, total: np.ndarray) -> np.ndarray:
        """See :class:`Steps`. MeshError where the budget does not suffice, or it was released with another sum."""
        name = self._name(where, step)
        if name not in self._paid:
            end = min(last, step - step % BLOCK + BLOCK - 1)
            self._charge(dp_sgd.names(self.agent, where, range(step, end + 1)))
        self._note(name, self._tag(name, total))
        return self._noised(name, total)

    def _charge(self, names: list[str]) -> None:
        with self.ledger() as ledger:
            charge = charged(self.mechanism, names, self.noise_by, self.mesh)
            if not paid(ledger.account, charge.purpose, self.agent):
                self._begin()
            elif files.found_at(self.journal) != "file":
                what = "is gone, and steps were charged: nobody knows any more with which sums they were released"
                raise MeshError(what, file=str(self.journal), instead="the file; or another seed, paid for anew")
            ledger.charge(charge)
        self._paid.update(names)

    def _begin(self) -> None:
        """Have a journal, before the first charge."""
        if files.found_at(self.journal) == "file":
            return
        self.journal.parent.mkdir(mode=0o700, exist_ok=True)
        files.write(self.journal, _FIRST)
        self.journal.chmod(0o600)

    def _note(self, name: str, tag: str) -> None:
        """Have the disk hold what is released; MeshError where that was another sum."""
        key = hashlib.sha256(name.encode()).hexdigest()[:_NAMED]
        with open(os.open(self.journal, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as file:
            hold(file, self.journal)
            self._catch_up(file.fileno())
            if (known := self._released.get(key)) == tag:
                return
            if known is not None:
                found = f"step {name!r} was released with another sum of gradients, which the two would tell"
                instead = "the machine, threads and versions of that run; or another seed, which is paid for anew"
                raise MeshError(found, file=str(self.journal), instead=instead)
            line = rest = f"{key} {tag}\n".encode("ascii")
            while rest:  # a disk that is nearly full takes a part
                rest = rest[os.write(file.fileno(), rest) :]
            os.fsync(file.fileno())
            self._released[key], self._read = tag, self._read + len(line)

    def _catch_up(self, file: int) -> None:
        """Read lines that were not read yet; a torn one, of a step that was not released, goes."""
        size = os.fstat(file).st_size
        if size == self._read:
            return
        *lines, rest = os.pread(file, size - self._read, self._read).split(b"\n")
        if rest:
            os.ftruncate(file, size - len(rest))
        for line in lines[self._read == 0 :]:
            key, _, tag = line.decode("ascii", "replace").partition(" ")
            self._released[key] = tag
        self._read = size - len(rest)
