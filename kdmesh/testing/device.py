"""Another device, where there is none: tensors that hold values on the CPU and say that they are elsewhere.

What a plugin makes on the CPU meets them in an error, as on a GPU. Computed is the same as on the CPU, so code that
branches on values runs as it does there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

NAME = "meta"  # the one device that every build of torch knows and nothing is computed on
FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)
CROSSING = ("copy_", "_to_copy", "lift_fresh", "_local_scalar_dense", "_copy_from")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")


class There(Tensor):
    """A tensor that says it is on the other device; ``held`` has its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch's docs have it

    @staticmethod
    def __new__(cls: type[There], inner: Tensor) -> There:
        """Wrap."""
        made: There = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME),
            requires_grad=inner.requires_grad,
        )
        made.held = inner.detach()
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"There({self.held!r})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """For torch: what it is made of."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], meta: Any, size: Any, stride: Any) -> There:
        """For torch: made again."""
        return There(inner["held"])

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # as torch's docs have it
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute on the CPU; an error where tensors of both places meet."""
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    flat, _ = tree_flatten((args, kwargs))
    there = any(isinstance(one, There) for one in flat)
    name = func._schema.name.partition("::")[2]
    if there and name not in CROSSING:
        kept = flat[:1] + (flat[-1:] if "put" in name else []) if name in INDEXED else flat
        here = [one for one in kept if isinstance(one, Tensor) and not isinstance(one, There) and one.dim()]
        if here:
            shape = list(here[0].shape)
            raise RuntimeError(f"{name}: a tensor {shape} that was made on the CPU meets one on another device")
    wanted = kwargs.get("device")
    out = there if wanted is None else torch.device(wanted).type == NAME
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner = tree_map(lambda one: one.held if isinstance(one, There) else one, (args, kwargs))
    found = func(*inner[0], **inner[1])
    if name in ("copy_", "_copy_from"):
        out = isinstance(args[0], There)
    wrapped = tree_map(lambda one: There(one) if isinstance(one, Tensor) else one, found) if out else found
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there and out else wrapped


class _Made(TorchDispatchMode):
    """What is made there holds values too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute."""
        return _computed(func, args, kwargs or {})


class _OfData(TorchFunctionMode):
    """What Python's numbers are made into, or tensors read as."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make it on the CPU, then say that it is there."""
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func in FROM_DATA and str(kwargs.get("device", "cpu")).startswith(NAME) and not isinstance(first, There):
            return There(func(*args, **{**kwargs, "device": "cpu"}))
        if func is Tensor.new_tensor and isinstance(first, There):
            kwargs.setdefault("dtype", first.dtype)
            return There(torch.tensor(*args[1:], **{**kwargs, "device": "cpu"}))
        if func in (Tensor.numpy, Tensor.__array__) and isinstance(first, There):
            raise TypeError("a tensor on another device is no array of numpy: take `.cpu()` first")
        if func is Tensor.tolist and isinstance(first, There):
            return first.held.tolist()
        return func(*args, **kwargs)


class _Generator(torch.Generator):
    """A generator of any device: its numbers are drawn on the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        """Make one, on the CPU."""
        return super().__new__(cls)


@contextmanager
def other_device() -> Iterator[Callable[[Any], Any]]:
    """Have another device for a while; gives ``there``, which takes tensors, in any lists, or a module, there."""
    kept = torch.Generator
    torch.Generator = _Generator  # type: ignore[misc]
    try:
        with _OfData(), _Made():
            yield _there
    finally:
        torch.Generator = kept  # type: ignore[misc]


def _there(thing: Any) -> Any:
    if isinstance(thing, nn.Module):
        for part in thing.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = nn.Parameter(There(weight.detach()), weight.requires_grad)
            for name, buffer in part._buffers.items():
                part._buffers[name] = None if buffer is None else There(buffer)
        return thing
    return tree_map(lambda one: There(one) if isinstance(one, Tensor) and not isinstance(one, There) else one, thing)


def back(thing: Any) -> Any:
    """The same values on the CPU."""
    return tree_map(lambda one: one.held if isinstance(one, There) else one, thing)
