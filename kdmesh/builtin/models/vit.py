"""A small vision transformer.

A. Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, arXiv 2010.11929: patches as tokens, learned
positions, a class token, pre-norm layers; no dropout. Attention is written out so that training and evaluation run the
same kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdmesh.builtin.models._shape import image
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Layer(nn.Module):
    """Self-attention, then a two-layer perceptron of four times the width; each normed before and added."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens ``[B, N, dim]`` of tokens ``[B, N, dim]``."""
        # [B, N, 3 dim] -> three of [B, heads, N, dim / heads]
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """``patches``, ``layers.0`` ..., ``norm`` and ``head`` on the class token.

    ``forward(x [B, C, H, W]) -> logits [B, classes]``; a tap on ``layers.i`` gives tokens ``[B, 1 + patches, dim]``.
    """

    def __init__(
        self, input_shape: Sequence[int], classes: int, patch: int = 4, dim: int = 64, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        channels, height, width = image(input_shape, "vit")
        if height % patch or width % patch:
            raise MeshError(
                f"patches of {patch}x{patch} do not tile {height}x{width} pixels",
                where="model.vit.patch",
                instead="a divisor of height and width",
            )
        if dim % heads:
            raise MeshError(
                f"{dim} is not a multiple of {heads} heads", where="model.vit.dim", instead="such a multiple"
            )
        tokens = 1 + (height // patch) * (width // patch)
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.layers = nn.Sequential(*(Layer(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.positions
        return self.head(self.norm(self.layers(tokens))[:, 0])
