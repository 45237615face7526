"""Membership: whether a loss tells samples that an agent, or a teacher of its, has learned from test samples.

By the loss of a class (Yeom et al., 2018) or of a text, by character; with a reference model by how much smaller it is
than that one's, as of texts that are easy for everyone ("difficulty calibration": Watson et al., "On the Importance of
Difficulty Calibration in Membership Inference Attacks", 2022; Carlini et al., "Extracting Training Data from Large
Language Models", 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.audits.membership import Membership, loss_scores, measured
from kdmesh.errors import MeshError
from kdmesh.inference.auditing.losses import of_rows
from kdmesh.inference.trained import Trained

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from kdmesh.inference.auditing.opened import Opened


@dataclass(frozen=True)
class Told:
    """How well samples are told that ``learned_by`` has learned, by what ``agent`` answers: itself, or a teacher of
    its, whose samples it has not seen. ``by``: loss, reference or shadows. ``accuracy``: of the agent on such samples,
    and on the others."""

    agent: str
    learned_by: str
    by: str
    membership: Membership
    accuracy: tuple[float, float]


def by_loss(opened: Opened, agent: str, trained: Trained, rate: float, reference: Trained | None) -> list[Told]:
    """What an agent tells. MeshError where there is nothing to tell, or nothing to compare with."""
    every = opened.told(agent)
    if not every:
        raise MeshError("it learned no sample of this run, and nobody whom it heard did")
    own = of_rows(trained, opened, opened.held)
    easy = None if reference is None else of_rows(reference, opened, opened.held).each
    found = []
    for name, mask in every.items():
        losses = of_rows(trained, opened, mask)
        right = (losses.right, own.right)
        told = measured(_scores(losses.each), _scores(own.each), rate)
        found.append(Told(agent, name, "loss", told, right))
        if reference is not None and easy is not None:
            known = of_rows(reference, opened, mask).each
            told = measured(_scores(losses.each - known), _scores(own.each - easy), rate)
            found.append(Told(agent, name, "reference", told, right))
    return found


def _scores(losses: Tensor) -> np.ndarray:
    return loss_scores(losses.numpy())
