"""Answers in eval mode leave a model as it was: what they would move of its state is put back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class Buffers:
    """The persistent buffers of a module, kept over a forward in eval mode: counters, running norms, memories.

    What a forward moves of them would make every later answer, the weights' sha256 and what is exported depend on how
    often the model was asked. Versions tell whether anything moved, without a look at the numbers; only then are all
    copied back. Buffers that are not persistent are caches, and no state. ``moved``: the path of the first that was.
    """

    def __init__(self, module: nn.Module) -> None:
        self.moved = ""
        self.become(module)

    def become(self, module: nn.Module) -> None:
        """Be those of a module that has taken the place of the one before."""
        self._places = [
            (part._buffers, name, f"{path}.{name}" if path else name)
            for path, part in module.named_modules()
            for name, value in part._buffers.items()
            if value is not None and name not in part._non_persistent_buffers_set and not value.is_inference()
        ]
        # a norm in train mode moves its running statistics, and torch leaves their versions alone
        self._norms = [part for part in module.modules() if part._buffers.get("running_mean") is not None]
        self._fresh = False  # whether the copies are of what the buffers are
        self._copies: list[Tensor] = []
        self._noted: list[tuple[dict[str, Tensor | None], str, Tensor, int]] = []  # where each was, at which version

    def __bool__(self) -> bool:
        return bool(self._places)

    def forget(self) -> None:
        """The module trains: the copies are no longer what it is."""
        self._fresh = False

    def note(self) -> None:
        """Copy them, unless they are what they were."""
        if self._fresh and not self._differ():
            return
        self._places = [place for place in self._places if place[0].get(place[1]) is not None]
        tensors = [tensor for holder, name, _ in self._places if (tensor := holder[name]) is not None]
        with torch.no_grad():
            if tensors and [_kind(copy) for copy in self._copies] == [_kind(tensor) for tensor in tensors]:
                torch._foreach_copy_(self._copies, tensors)
            else:
                self._copies = [tensor.detach().clone() for tensor in tensors]
        self._noted = [
            (holder, name, tensor, tensor._version)
            for (holder, name, _), tensor in zip(self._places, tensors, strict=True)
        ]
        self._fresh = True

    def changed(self) -> bool:
        """Whether any may be another than at :meth:`note`."""
        return self._differ() or any(norm.training for norm in self._norms)

    def put_back(self, told: bool = True) -> None:
        """Undo what was done since :meth:`note`. An answer may share memory with a buffer: copy it first.

        ``told``: whether what was moved is noted, as an answer in eval mode should move nothing.
        """
        paths = [path for _, _, path in self._places]
        for number, (path, noted, copy) in enumerate(zip(paths, self._noted, self._copies, strict=True)):
            holder, name, tensor, version = noted
            if told and not self.moved and (tensor._version != version or not _equal(holder.get(name), copy)):
                self.moved = path
            if tensor.shape == copy.shape:
                with torch.no_grad():
                    tensor.copy_(copy)
            else:
                tensor = copy.clone()
            holder[name] = tensor
            self._noted[number] = holder, name, tensor, tensor._version
        self._fresh = True

    def _differ(self) -> bool:  # asked twice a forward
        for holder, name, tensor, version in self._noted:
            if tensor._version != version or holder.get(name) is not tensor:
                return True
        return False


def _equal(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and torch.equal(one, other)


def _kind(value: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return value.shape, value.dtype, value.device
