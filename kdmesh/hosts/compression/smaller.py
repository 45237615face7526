"""A transformer with fewer units in each layer, built from a smaller configuration: so its folder loads anywhere."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.text.source import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence


def left_of(gone: Sequence[int], count: int, what: str) -> list[int]:
    """What is left of so many when some go. MeshError for one that is not there, and where nothing is left."""
    absent = [number for number in gone if number >= count]
    if len(gone) >= count:
        instead = f"at most {count - 1}" if count > 1 else "leave it out"
        raise MeshError(f"{len(gone)} {what}s are to go, and there are {count}", where="drop", instead=instead)
    if absent:
        found = f"there is no {what} {absent[0]}: it has {count}, counted from 0"
        raise MeshError(found, where="drop", instead=f"numbers from 0 to {count - 1}")
    return [number for number in range(count) if number not in gone]


def built_like(net: Any) -> dict[str, Any]:
    """How a network is built as this one was."""
    return {"dtype": next(net.parameters()).dtype, "attn_implementation": net.config._attn_implementation}


@torch.no_grad()
def without_units(
    net: Any, changes: dict[str, int], count: int, left: int | list[int], sizes: set[int], what: str
) -> Any:
    """A network with ``changes`` in its configuration, which leave ``left`` of ``count`` units to each layer.

    ``left``: these, or so many, of the largest norm. ``sizes``: how many rows or columns of a matrix are a unit's.
    MeshError where a smaller configuration does not just leave rows and columns out.
    """
    settings = copy.deepcopy(net.config)
    for name, value in changes.items():
        setattr(settings.get_text_config(), name, value)
    old, kept = net.state_dict(), _built(net, settings)
    new = {} if kept is None else kept.state_dict()
    number = left if isinstance(left, int) else len(left)
    layers: dict[str, list[tuple[str, int, int]]] = {}  # by a layer: names, axes, and sizes of a unit
    sound = old.keys() == new.keys() and any(one.shape != new[name].shape for name, one in old.items())
    blocks = _blocks(net)
    for name, one in old.items() if sound else ():
        for axis, (before, after) in enumerate(zip(one.shape, new[name].shape, strict=True)):
            if before != after:
                layer = next((block for block in blocks if name.startswith(block)), None)
                size = before // count
                sound &= layer is not None and size in sizes and (size * count, size * number) == (before, after)
                layers.setdefault(layer or "", []).append((name, axis, size))
    if not sound or not {*blocks} <= layers.keys():
        kind = net.config.get_text_config().model_type
        why = f"{kind} has no smaller form with fewer {what} in each layer"
        raise MeshError(why, instead="layers: {drop: 1}, neurons: {share: 0.5} or magnitude: {share: 0.5}")
    assert kept is not None
    for parts in layers.values():
        choice = left if isinstance(left, list) else _strongest(old, parts, count, left)
        for name, axis, size in parts:
            rows = (torch.tensor(choice)[:, None] * size + torch.arange(size)).flatten()
            old[name] = old[name].index_select(axis, rows.to(old[name].device))
    kept.load_state_dict(old)
    return kept


def _built(net: Any, settings: Any) -> Any:
    """A network of these settings; None where the architecture refuses them."""
    with quiet():
        try:
            return type(net)._from_config(settings, **built_like(net))
        except Exception:  # each architecture checks in its own way
            return None


def _blocks(net: nn.Module) -> list[str]:
    """The layers, by how the names of their weights begin."""
    count = net.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    lists = [path for path, part in net.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    return [f"{lists[0]}.{number}." for number in range(count)] if lists else []


def _strongest(state: dict[str, Tensor], parts: list[tuple[str, int, int]], count: int, left: int) -> list[int]:
    """The units of which the product of the norms of their parts of the matrices is largest, in their order."""
    if any(state[name].is_meta for name, _, _ in parts):
        return list(range(left))  # without memory only shapes matter
    score = torch.zeros(count, dtype=torch.float64)
    for name, axis, size in parts:
        if state[name].dim() > 1:
            own = state[name].double().cpu().movedim(axis, 0).reshape(count, size, -1)
            score += own.pow(2).sum((1, 2)).log()
    return sorted(score.argsort(descending=True, stable=True)[:left].tolist())
