"""What models of a query and its candidates share: the shape they read, the layers, and what is missing in a list."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdmesh.builtin.models.mlp import ACTIVATIONS
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence


def features(input_shape: Sequence[int], classes: int, model: str) -> int:
    """How many values a query or a candidate has, of samples ``[1 + L, ...]`` with L outputs; else a MeshError."""
    if len(input_shape) < 2 or input_shape[0] != 1 + classes:
        raise MeshError(
            f"{model} reads a query and its candidates, [1 + {classes}, ...]; the data's samples are "
            f"{list(input_shape)}",
            where=f"model.{model}",
            instead="a data set of lists, task: ranking; or mlp for other data",
        )
    return math.prod(input_shape[1:])


def layers(inputs: int, hidden: Sequence[int], dropout: float, activation: str) -> nn.Sequential:
    """Hidden layers ``[..., inputs]`` to ``[..., hidden[-1]]``."""
    return nn.Sequential(
        *(
            nn.Sequential(
                OrderedDict(
                    linear=nn.Linear(one, two), activation=ACTIVATIONS[activation](), dropout=nn.Dropout(dropout)
                )
            )
            for one, two in pairwise([inputs, *hidden])
        )
    )


def missing(candidates: Tensor) -> Tensor:
    """Which candidates ``[B, L, F]`` there are not, ``[B, L]`` bool: those of zeros, as shorter lists have."""
    return (candidates == 0).all(-1)


def scored(scores: Tensor, absent: Tensor) -> Tensor:
    """Scores ``[B, L]``, ``-inf`` where there is no candidate: of no mass in a softmax over the list."""
    return scores.masked_fill(absent, -torch.inf)
