"""How each kind of signal is taken apart into tensors, to cross between hosts or stand in a checkpoint, and restored.

A tensor is a part alone. A :class:`Lazy` of a class in the table says itself what it is made of (``pack``) and is made
of that again (``restore``); any other, a mixture say, is made whole. Signals of plugins bring their class by the
``codec`` of their offer: whoever reads a checkpoint imports only what the mesh names.
"""

from __future__ import annotations

from importlib import import_module

from torch import Tensor

from kdmesh.errors import MeshError, RunFailed
from kdmesh.signals.lazy import FactoredLogits, Lazy
from kdmesh.signals.sampled import SampledProbs
from kdmesh.signals.sparse import TopKLogits

DENSE = "dense"
KINDS: dict[str, type[Lazy]] = {"factored": FactoredLogits, "top_k": TopKLogits, "sampled": SampledProbs}
"""Classes by the name under which their values cross: built-in ones, and import strings of offered ones."""


def add(codec: str, where: str = "") -> None:
    """Put a class into the table by its import string, ``module:Class``. MeshError for what is none."""
    if codec in KINDS:
        return
    module, _, name = codec.partition(":")
    kind = getattr(import_module(module), name)
    if not isinstance(kind, type) or not issubclass(kind, Lazy) or Lazy.pack is kind.pack or "restore" not in dir(kind):
        raise MeshError(
            f"the codec {codec} is not a class of signals that are packed and restored",
            where=where,
            instead="a subclass of kdmesh.signals.lazy.Lazy with the methods pack and restore",
        )
    KINDS[codec] = kind


def pack(value: Tensor | Lazy) -> tuple[str, dict[str, Tensor]]:
    """The kind that a value crosses as, and the tensors that it is made of, by name."""
    if isinstance(value, Tensor):
        return DENSE, {DENSE: value}
    for name, kind in KINDS.items():
        if type(value) is kind and (parts := value.pack()) is not None:
            return name, parts
    return DENSE, {DENSE: value.dense()}


def keep(value: Tensor | Lazy) -> tuple[str, dict[str, Tensor], dict[str, Tensor]]:
    """The kind that a value is kept as in a store, its tensors with a row for each of its rows, and those without.

    What does not say of all its parts which these are is made whole.
    """
    if isinstance(value, Lazy):
        name = next((name for name, kind in KINDS.items() if type(value) is kind), "")
        parts = value.keep() if name else None
        if parts is not None:
            rows = {part: one for part, one in parts.items() if part not in value.shared}
            if all(one.dim() and len(one) == len(value) for one in rows.values()):
                return name, rows, {part: one for part, one in parts.items() if part in value.shared}
        value = value.dense()
    return DENSE, {DENSE: value.detach()}, {}


def restore(name: str, parts: dict[str, Tensor]) -> Tensor | Lazy:
    """The value that :func:`pack` took apart, of these tensors, which may be on another device."""
    if name == DENSE:
        return parts[DENSE]
    if name not in KINDS:
        raise RunFailed(
            f"a signal of kind {name} cannot be restored: no signal of this mesh has it for its codec",
            instead=f"the plugin as it was when the signal was made; known are {', '.join((DENSE, *KINDS))}",
        )
    return KINDS[name].restore(parts)
