"""Numbers of 8 bits in a forward: an agent learns with the rounding that `kdmesh export --to int8` gives its file.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018: values
are rounded going forward, and gradients pass as if they were not. Of transformers as Zafrir et al., Q8BERT, 2019; with
a teacher as Polino et al., Model compression via distillation and quantization, 2018.

Rounded are the weights of linear layers, by output; what goes into these, by row, so that an answer does not depend on
the batch; and rows of embeddings. The largest magnitude of each becomes 127. All else stays as it is.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONV1D = "Conv1D"  # gpt2's linear layer, a class of transformers, which is not imported for this
LARGEST = 127
LEAST = 1e-12  # of a largest magnitude: rows of zeros stay zeros


class _Rounded(torch.autograd.Function):
    """Round along an axis; the gradient is that of nothing done."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, axis: int) -> Tensor:
        """``value`` by steps of a 127th of the largest magnitude along ``axis``."""
        scale = value.abs().amax(axis, keepdim=True).clamp_min(LEAST) / LARGEST
        return torch.round(value / scale) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Straight through."""
        return grads[0], None


def rounded(value: Tensor, axis: int = -1) -> Tensor:
    """Values as 8 bits hold them, along an axis."""
    found: Tensor = _Rounded.apply(value, axis)
    return found


class Int8Linear(nn.Linear):
    """A linear layer of rounded weights and inputs."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[..., out_features]``."""
        return functional.linear(rounded(input), rounded(self.weight), self.bias)


class Int8Embedding(nn.Embedding):
    """An embedding of rounded rows."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[..., embedding_dim]``."""
        return rounded(super().forward(input))


KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: Int8Linear, nn.Embedding: Int8Embedding}
EXACT = {rounding: kind for kind, rounding in KINDS.items()}


def quantize(module: nn.Module) -> None:
    """Let a module round, in place; its weights and their names stay as they are.

    MeshError for one with nothing to round, or of which a part reads weights past the layers that have them.
    """
    if getattr(module, "adapted", None) is not None:
        what = f"weights beside an adapter ({module.adapted}) stay as they are"
        raise MeshError(what, instead="leave one of both out")
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention) or type(part).__name__ == CONV1D:
            what = f"weights of a {type(part).__name__} are in no linear layer, where they would be rounded"
            raise MeshError(what, instead="a model of linear layers (nn.Linear)")
    found = [part for part in module.modules() if type(part) in KINDS]
    if not found:
        what = f"a {type(module).__name__} has no linear layer or embedding that could be rounded"
        raise MeshError(what, instead="leave it out")
    for part in found:
        part.__class__ = KINDS[type(part)]


@contextmanager
def exact(module: nn.Module) -> Iterator[None]:
    """A module without its rounding, for this while."""
    changed = [part for part in module.modules() if type(part) in EXACT]
    kinds = [type(part) for part in changed]
    try:
        for part in changed:
            part.__class__ = EXACT[type(part)]
        yield
    finally:
        for part, kind in zip(changed, kinds, strict=True):
            part.__class__ = kind
