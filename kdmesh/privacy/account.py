"""A party's folder: its secret and its ledger, and answers from the two.

The folder is the party's alone, beside no run: one account counts over all runs and meshes that ask the party. It is
opened for each answering, read whole, and its chain proved; what was its head then must be in it ever after.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from kdmesh import files
from kdmesh.errors import MeshError
from kdmesh.privacy import keys
from kdmesh.privacy.ledger import NAME, Budget, Ledger, Title, read
from kdmesh.privacy.releasing import Answering, Desk
from kdmesh.privacy.steps import Charged, Rehearsed, Steps, charged, paid
from kdmesh.privacy.summary import summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from kdmesh.privacy.gaussian import Noise
    from kdmesh.privacy.mechanisms._base import Mechanism
    from kdmesh.privacy.mechanisms.dp_sgd import DPSGD
    from kdmesh.privacy.summary import Summary

SECRET, LEDGER, FIGURES = "secret", NAME, "figures.jsonl"


class Account(Protocol):
    """Where a rule's answers come from."""

    def answer(
        self, mechanism: Answering, mesh: str, queries: Sequence[str], values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the rows of ``values [N, K]`` that are answered, and an answer for each."""

    def steps(self, mesh: str, agent: str, mechanism: DPSGD) -> Steps:
        """Where an agent that trains privately has its draws and noise from."""

    def keep(self, **figures: Any) -> None:
        """Note figures that are for the party alone."""

    def summary(self) -> Summary:
        """What was spent so far: nothing that is private."""


@dataclass
class PartyAccount:
    """An account on the disk, of a party with a budget. It may be sent to the process that answers: it holds no secret.

    ``head``: of the ledger when it was last seen.
    """

    folder: Path
    party: str
    unit: str
    adjacency: str
    budget: Budget
    head: str = ""

    def refuse_there(self) -> None:
        """Raise MeshError where an account is already."""
        if files.found_at(self.folder) not in ("does not exist", "folder"):
            raise MeshError("is no folder", file=str(self.folder), instead="a folder, which is made if need be")
        for name in (SECRET, LEDGER):
            if files.found_at(self.folder / name) != "does not exist":
                what = f"there is a {name} already: what was answered with it stays answered"
                raise MeshError(what, file=str(self.folder), instead="that one; or another folder, for another account")

    def create(self) -> None:
        """Make the folder, a secret and a ledger in it. MeshError where there is one already."""
        self.refuse_there()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = keys.create(self.folder / SECRET)
        with Ledger(self.folder / LEDGER, self._title(secret)) as ledger:
            self.head = ledger.account.head

    def check(self) -> None:
        """Refuse an account that is not there, is not of this party and budget, was changed, or was rolled back."""
        secret = self._secret()
        with Ledger(self.folder / LEDGER, self._title(secret), self.head) as ledger:
            self.head = ledger.account.head

    def refuse_short(self, mesh: str, wanted: Sequence[tuple[str, DPSGD, int]]) -> None:
        """MeshError where there is no room for so many steps of agents, those left out that were paid for."""
        ledger = read(self.folder / LEDGER, self.head)
        more = []
        for agent, mechanism, steps in wanted:
            before = paid(ledger, charged(mechanism, [], self.party, mesh).purpose, agent)
            more.append(mechanism.costs(max(0, steps - before)))
        if ledger.affords(*more):
            return
        asked = " and ".join(f"{cost.count:,} of {agent}" for cost, (agent, *_) in zip(more, wanted, strict=True))
        what = f"epsilon {ledger.spent():.4g} of {self.budget.epsilon:g} is spent (delta {self.budget.delta:g}), and"
        what += f" the steps to come, {asked}, would make it {ledger.spent(more):.4g}"
        instead = "fewer steps, or more noise"
        if len(more) == 1:
            room = ledger.room(more[0].sensitivity, more[0].sigma, more[0].count, more[0].rate)
            instead = f"{room:,} steps, or more noise" if room else "more noise: for none of these is there room"
        raise MeshError(what, file=str(ledger.path), where="budget", instead=instead)

    def answer(
        self, mechanism: Answering, mesh: str, queries: Sequence[str], values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Charge and answer, as far as the budget goes: see :meth:`Desk.answer_some`."""
        secret = self._secret()
        with Ledger(self.folder / LEDGER, self._title(secret), self.head) as ledger:
            try:
                return Desk(ledger, secret, mesh, self.party).answer_some(mechanism, queries, values)
            finally:
                self.head = ledger.account.head

    def steps(self, mesh: str, agent: str, mechanism: DPSGD) -> Steps:
        """Steps that are charged: see :mod:`kdmesh.privacy.steps`."""
        secret = self._secret()
        return Charged(secret, mechanism, mesh, agent, folder=self.folder, ledger=self._ledger, noise_by=self.party)

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        """Its ledger, open."""
        with Ledger(self.folder / LEDGER, self._title(self._secret()), self.head) as ledger:
            try:
                yield ledger
            finally:
                self.head = ledger.account.head

    def seal(self, content: bytes) -> str:
        """A sum of what is private, by which the party knows it again."""
        return self._secret().seal(content)

    def keep(self, **figures: Any) -> None:
        """Append figures to a file beside the ledger, which nobody else may read."""
        number = os.open(self.folder / FIGURES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(number, "a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")

    def summary(self) -> Summary:
        """What was spent so far: nothing that is private."""
        return summary(read(self.folder / LEDGER, self.head))

    def _title(self, secret: keys.Secret) -> Title:
        return Title(self.party, secret.identity, self.unit, self.adjacency, self.budget)

    def _secret(self) -> keys.Secret:
        for name in (SECRET, LEDGER):
            if files.found_at(self.folder / name) == "does not exist":
                what = f"there is no {name} of {self.party} here"
                instead = "kdmesh ledger new FILE --privacy FOLDER, once; or the folder where that was made"
                raise MeshError(what, file=str(self.folder), where="--privacy", instead=instead)
        return keys.load(self.folder / SECRET)


class Rehearsal:
    """Answers that nobody is told: noise of a secret that is forgotten, and no account."""

    def __init__(self) -> None:
        self._secret = keys.Secret(os.urandom(keys.SIZE))

    def answer(
        self, mechanism: Answering, mesh: str, queries: Sequence[str], values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """All of them."""
        import numpy as np

        def draw(part: Mechanism, rows: np.ndarray) -> Noise:
            pairs = [(queries[row], "") for row in rows]
            return self._secret.noise(part.sigma, part.size(values), mesh, part.purpose, pairs)

        return np.arange(len(values)), mechanism.answer(values, draw)

    def steps(self, mesh: str, agent: str, mechanism: DPSGD) -> Steps:
        """Steps of nothing."""
        return Rehearsed(self._secret, mechanism, mesh, agent)

    def keep(self, **figures: Any) -> None:
        """They are of nothing."""

    def summary(self) -> NoReturn:
        """Nothing is spent, and nobody asks."""
        raise MeshError("a rehearsal has no account")
