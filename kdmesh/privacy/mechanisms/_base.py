"""What a mechanism is: a function of bounded sensitivity, noise, and what is made of the two."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from kdmesh.errors import MeshError
from kdmesh.privacy import gaussian
from kdmesh.privacy.accounting import Gaussian
from kdmesh.privacy.sensitivity import sensitivity

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.privacy.gaussian import Noise

Draw = Callable[["Mechanism", "np.ndarray"], "Noise"]
"""Charges for some rows, by their numbers, and only then draws the noise that a mechanism releases them with."""


class Mechanism(ABC):
    """Answers with Gaussian noise: a row of private values each.

    Args:
        sigma: the noise's standard deviation on each number, in the unit of the values.
        unit: who is protected, see :mod:`kdmesh.privacy.sensitivity`.
        adjacency: against what.

    Attributes:
        name: in the ledger.
        released: what an answer tells, in words.
        bounds: L2 sensitivity of a row, by unit and adjacency.
        disjoint: whether that holds where each sample has moved the say of one member at most.
    """

    name: ClassVar[str]
    released: ClassVar[str]
    bounds: ClassVar[Mapping[tuple[str, str], float]]
    disjoint: ClassVar[bool] = False

    def __init__(self, sigma: float, unit: str, adjacency: str) -> None:
        self.sigma, self.unit, self.adjacency = float(Gaussian(1.0, sigma).sigma), unit, adjacency
        self.sensitivity = sensitivity(self.bounds, unit, adjacency)
        self.digits = gaussian.digits(self.sigma)

    @property
    def parts(self) -> tuple[Mechanism, ...]:
        """What an answer is charged for, at most: each part for itself."""
        return (self,)

    @property
    def settings(self) -> dict[str, float]:
        """What else an answer depends on, beside values and noise."""
        return {}

    @property
    def purpose(self) -> str:
        """All that tells this mechanism from others, for noise to be another where one differs."""
        return json.dumps([self.name, self.sensitivity, self.sigma, self.settings], sort_keys=True)

    def cost(self, count: int = 1) -> Gaussian:
        """What so many answers cost on any data. At order a: a * sensitivity^2 / (2 sigma^2), for each."""
        return Gaussian(self.sensitivity, self.sigma, count)

    @abstractmethod
    def steps(self, values: np.ndarray) -> np.ndarray:
        """Values in whole steps of the grid, ``[N, K]``. MeshError for what the sensitivity is not known of."""

    def size(self, values: np.ndarray) -> int:
        """How many numbers of noise an answer takes."""
        return int(values.shape[1])

    @abstractmethod
    def release(self, values: np.ndarray, noise: Noise) -> np.ndarray:
        """The answers, one for each row of values, given noise ``[N, size]``."""

    def answer(self, values: np.ndarray, draw: Draw) -> np.ndarray:
        """The answers, with noise that is charged for before it is drawn."""
        import numpy as np

        return self.release(values, draw(self, np.arange(len(values))))

    def private_log_q(self, values: np.ndarray) -> np.ndarray | None:
        """For each row, what :func:`kdmesh.privacy.pate.private_rdp` bounds its cost by; None where nothing does.

        It is made of the values, and private as they are.
        """
        return None

    def checked(self, noise: Noise, count: int, size: int) -> np.ndarray:
        """The noise in steps. MeshError where it was not drawn for this."""
        if noise.sigma != self.sigma or noise.steps.shape != (count, size):
            found = f"noise of sigma {noise.sigma:g} for {noise.steps.shape}"
            raise MeshError(found, where=self.name, instead=f"of sigma {self.sigma:g} for {(count, size)}")
        return noise.steps


def refuse_shape(values: np.ndarray, name: str) -> None:
    """MeshError unless there is a row of at least two numbers for each answer."""
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "fiu":
        found = f"values of shape {values.shape} and type {values.dtype}"
        raise MeshError(found, where=name, instead="numbers in rows, one for each class")
