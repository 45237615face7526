"""What a model says when the data are not of the shape it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence


def image(input_shape: Sequence[int], model: str) -> tuple[int, int, int]:
    """Return channels, height and width of an image's shape; any other shape is a MeshError that names the model."""
    if len(input_shape) != 3:
        raise MeshError(
            f"{model} reads images [channels, height, width]; the data's samples are {list(input_shape)}",
            where=f"model.{model}",
            instead="a model for vectors, such as mlp",
        )
    channels, height, width = input_shape
    return channels, height, width
