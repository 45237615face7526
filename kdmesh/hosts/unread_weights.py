"""Frozen weights of a file that nobody has computed with yet: the file is hashed, and read where somebody asks."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from torch import Tensor, nn

from kdmesh.hosts.identity import Unknown, identity
from kdmesh.hosts.local_weights import LocalWeights, hashed
from kdmesh.hosts.modules import load_weights, refuse_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.spec import TrainSpec


class UnreadWeights(LocalWeights):
    """Weights that have no memory until their agent forwards, or they are asked for: with a store that may be never."""

    def __init__(self, name: str, module: nn.Module, settings: TrainSpec, path: str, where: str) -> None:
        """``module``: on the `meta` device, in eval mode. MeshError where the file at ``path`` is not of it."""
        super().__init__(name, module, settings)
        refuse_weights(module, Path(path), where)
        self._path, self._where, self.unread = path, where, True

    def read(self) -> None:
        """Read the file, once."""
        if self.unread:
            self.unread = False
            self.module.to_empty(device=self.settings.device)
            load_weights(self.module, self._path, self._where)
            self.module.requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        """As of weights that were read."""
        self.read()
        return super().state()

    def load(self, state: dict[str, Tensor]) -> None:
        """As of weights that were read."""
        self.read()
        super().load(state)

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The module with its weights."""
        self.read()
        yield self.module

    def sha256(self) -> str:
        """The same number as of weights that were read."""
        if not self.unread:
            return super().sha256()
        digest, types = hashlib.sha256(), {name: one.dtype for name, one in self.module.state_dict().items()}
        with safe_open(self._path, "pt") as file:
            for name, dtype in sorted(types.items()):
                hashed(digest, name, file.get_tensor(name).to(dtype))
        return digest.hexdigest()


def may_wait(module: nn.Module) -> bool:
    """Whether a module on the `meta` device is all that its weights' file makes it: it holds no other numbers."""
    try:
        identity(module)
    except Unknown:
        return False
    return all(isinstance(one, torch.Tensor) and one.is_meta for one in module.state_dict().values())
