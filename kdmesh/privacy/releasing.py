"""A party's answers: each is charged for, then made with noise from the party's secret, then given out.

There is no other way from values to an answer: a mechanism takes noise alone that was drawn for it, and noise is drawn
here once the ledger has the charge on the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kdmesh.errors import MeshError
from kdmesh.privacy import notes
from kdmesh.privacy.ledger import Charge

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from kdmesh.privacy.gaussian import Noise
    from kdmesh.privacy.keys import Secret
    from kdmesh.privacy.ledger import Ledger
    from kdmesh.privacy.mechanisms._base import Draw, Mechanism


class Answering(Protocol):
    """A mechanism, or one that is made of several; ``disjoint`` as of a mechanism."""

    name: str
    released: str
    unit: str
    adjacency: str
    disjoint: bool

    @property
    def parts(self) -> tuple[Mechanism, ...]:
        """What an answer is charged for, at most."""

    def answer(self, values: np.ndarray, draw: Draw) -> np.ndarray:
        """Answers for rows of values."""


@dataclass(frozen=True)
class Desk:
    """Where a party answers.

    Attributes:
        ledger: open, of the party.
        secret: whose identity the ledger names.
        mesh: what queries are of.
        noise_by: who adds noise; the party itself, as a rule.
        keep_private: keep what the answers cost in hindsight, in a file beside the ledger that is private itself.
    """

    ledger: Ledger
    secret: Secret
    mesh: str
    noise_by: str
    keep_private: bool = False

    def __post_init__(self) -> None:
        title = self.ledger.account.title
        if title.key != self.secret.identity:
            raise MeshError(
                f"is of the secret {title.key}, not of {self.secret.identity}",
                file=str(self.ledger.account.path),
                where="key",
                instead="the party's own secret: with another one, what was answered would be answered anew, unpaid",
            )

    def answer(self, mechanism: Answering, queries: Sequence[str], values: np.ndarray) -> np.ndarray:
        """Answer queries, each with its row of values ``[N, K]``. MeshError where that may not be, before it is.

        A query that was answered is answered again, with the same noise and at no cost; of other values it is refused.
        Where the budget suffices for the first part of a mechanism alone, that is charged, and nothing is answered.
        """
        self._refuse(mechanism, queries, values)
        return mechanism.answer(values, lambda part, rows: self._draw(part, [queries[n] for n in rows], values[rows]))

    def answer_some(
        self, mechanism: Answering, queries: Sequence[str], values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answer those queries that were answered before, and of the others, in their order, as many as the budget has
        room for, each with all that it may cost: the numbers of their rows, and an answer for each.

        Which they are depends on what the ledger says alone, and on nothing that is private.
        """
        import numpy as np

        self._refuse(mechanism, queries, values)
        first = mechanism.parts[0]
        before = self.ledger.paid(self._charge(first, dict.fromkeys(queries, "")))
        parts = [one.cost() for one in mechanism.parts]
        rows = [number for number, one in enumerate(queries) if one in before]
        left = [number for number, one in enumerate(queries) if one not in before]
        found: list[tuple[list[int], np.ndarray]] = []
        while True:
            if rows:
                found.append((rows, self.answer(mechanism, [queries[n] for n in rows], values[rows])))
            count = self.ledger.account.room_for(parts, len(left)) if left else 0
            if not count:
                break
            rows, left = left[:count], left[count:]
        if not found:
            return np.zeros(0, dtype=np.int64), self.answer(mechanism, [], values[:0])
        numbers = np.array([number for some, _ in found for number in some])
        order = numbers.argsort()
        return numbers[order], np.concatenate([answers for _, answers in found])[order]

    def _refuse(self, mechanism: Answering, queries: Sequence[str], values: np.ndarray) -> None:
        title = self.ledger.account.title
        if (mechanism.unit, mechanism.adjacency) != (title.unit, title.adjacency):
            found = f"unit: {mechanism.unit}, adjacency: {mechanism.adjacency}"
            instead = f"unit: {title.unit}, adjacency: {title.adjacency}, as the ledger counts"
            raise MeshError(found, where=mechanism.name, instead=instead)
        if len(set(queries)) != len(queries) or len(queries) != len(values):
            found = f"{len(queries)} queries, {len(set(queries))} of them different, for {len(values)} rows"
            raise MeshError(found, where=mechanism.name, instead="an id of its own for each row")

    def _charge(self, mechanism: Mechanism, queries: Mapping[str, str]) -> Charge:
        """What answers of some queries, each with the tag of its values, are charged as."""
        settings, cost = mechanism.settings, mechanism.cost()
        return Charge(mechanism.name, settings, cost.sensitivity, cost.sigma, self.noise_by, self.mesh, queries)

    def _draw(self, mechanism: Mechanism, queries: Sequence[str], values: np.ndarray) -> Noise:
        """Noise for queries, once they are charged for."""
        steps = mechanism.steps(values)
        rows = [row.astype("<i8").tobytes() for row in steps]
        tags = [self.secret.tag(row, self.mesh, mechanism.purpose, one) for one, row in zip(queries, rows, strict=True)]
        receipt = self.ledger.charge(self._charge(mechanism, dict(zip(queries, tags, strict=True))))
        if self.keep_private and receipt.number is not None:
            new = set(receipt.new)
            found = mechanism.private_log_q(values[[number for number, one in enumerate(queries) if one in new]])
            if found is not None:
                notes.keep(self._path, receipt.number, [float(one) for one in found])
        pairs = list(zip(queries, tags, strict=True))
        return self.secret.noise(mechanism.sigma, mechanism.size(values), self.mesh, mechanism.purpose, pairs)

    @property
    def _path(self) -> Path:
        return self.ledger.account.path
