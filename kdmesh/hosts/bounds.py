"""While a model is built: how much of it there may be, so that a slip of a zero is told in seconds."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.nn.modules import module as registration

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

PARTS = 30_000  # modules and parameters of one model: 126 layers of a llama of 405 billion have 2,600
NUMBERS = 2**40  # in all parameters of one model: a trillion, which are four terabytes

BEYOND = "size calculation overflowed", "not enough memory", "can't allocate memory"
"""What torch says of tensors that are too large to be counted or to be had."""


@contextmanager
def bounded(where: str) -> Iterator[None]:
    """Refuse a model that has too many parts or parameters, of whatever class, as soon as it has them."""
    parts = numbers = 0

    def counted(parent: nn.Module, name: str, part: Any) -> None:
        nonlocal parts, numbers
        parts += 1
        numbers += part.numel() if hasattr(part, "numel") else 0
        if parts > PARTS or numbers > NUMBERS:
            found = (
                f"{NUMBERS:,} parameters, {NUMBERS >> 28:,} GiB"
                if numbers > NUMBERS
                else f"{PARTS:,} modules and parameters"
            )
            raise MeshError(f"this model has more than {found}", where=where, instead="fewer or narrower layers")

    handles = [
        registration.register_module_module_registration_hook(counted),
        registration.register_module_parameter_registration_hook(counted),
    ]
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in BEYOND):
            raise
        message = next(iter(str(error).splitlines()))
        raise MeshError(
            f"this model is too large: {message}", where=where, instead="fewer or narrower layers"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
