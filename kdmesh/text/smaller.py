"""A transformer with fewer units in each layer, built from a smaller configuration: so its folder loads anywhere."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.text.source import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


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


def heads_of(config: Any) -> tuple[int, int, int]:
    """How many heads of queries a model has, how many of keys and values, and the size of one.

    MeshError for one without a number of heads.
    """
    queries = getattr(config, "num_attention_heads", None)
    if not isinstance(queries, int):
        raise MeshError(f"{config.model_type} has no number of heads", instead="layers: {drop: 1}")
    heads = getattr(config, "num_key_value_heads", None) or queries
    return queries, heads, getattr(config, "head_dim", None) or config.hidden_size // queries


def of_heads(name: str, axis: int) -> bool:
    """Whether an axis of a layer's weight, or bias, is that of its heads: what leads into them, and out of them."""
    within, _, module = name.rpartition(".")[0].rpartition(".")
    if module in INTO_HEADS:
        return axis == 0
    of_attention = "att" in within.lower()
    return axis == 1 and of_attention and (module in OUT_OF_HEADS or within.endswith("attention.output"))


INTO_HEADS = (
    *("query", "key", "value", "query_proj", "key_proj", "value_proj", "pos_query_proj", "pos_key_proj"),
    *("q_lin", "k_lin", "v_lin", "q_proj", "k_proj", "v_proj", "q", "k", "v"),
)
OUT_OF_HEADS = ("out_lin", "out_proj", "o_proj", "o")
"""How architectures call the projections of an attention, whose heads have no size of their own."""


@dataclass(frozen=True)
class Cut:
    """Of ``count`` units of one kind some are ``left``: these, or so many, of the largest norm.

    ``sizes``: how many rows or columns of a matrix are a unit's; ``here``: whether an axis of a weight is one of
    theirs; ``apart``: each layer chooses its own, else one choice is the whole network's.
    """

    count: int
    left: int | list[int]
    sizes: Collection[int]
    here: Callable[[str, int], bool] = lambda name, axis: True
    apart: bool = True

    @property
    def many(self) -> int:
        """How many are left."""
        return self.left if isinstance(self.left, int) else len(self.left)


@torch.no_grad()
def without_units(
    net: Any,
    changes: Mapping[str, int],
    cuts: Sequence[Cut],
    what: str,
    keeps: Callable[[str, int], bool] | None = None,
) -> Any:
    """A network with ``changes`` in its configuration, which leave some units of each of ``cuts``.

    An axis that becomes shorter is the first one's whose it is; each layer has some that ``keeps`` names, and none of
    these does. MeshError where a smaller configuration does not just leave rows and columns out, or does not run:
    ``what`` are fewer.
    """
    settings = copy.deepcopy(net.config)
    for name, value in changes.items():
        setattr(settings.get_text_config(), name, value)
    old, kept = net.state_dict(), _built(net, settings)
    new = {} if kept is None else kept.state_dict()
    groups: dict[tuple[int, str], list[tuple[str, int, int]]] = {}  # by a cut and layer: names, axes, sizes of a unit
    sound = old.keys() == new.keys() and any(one.shape != new[name].shape for name, one in old.items())
    blocks, still = _blocks(net), set[str]()
    for name, one in old.items() if sound else ():
        for axis, (before, after) in enumerate(zip(one.shape, new[name].shape, strict=True)):
            if keeps is not None and keeps(name, axis):
                sound &= before == after
                still |= {block for block in blocks if name.startswith(block)}
            if before != after:
                number, cut = next((at, cut) for at, cut in enumerate(cuts) if cut.here(name, axis))
                layer = next((block for block in blocks if name.startswith(block)), None) if cut.apart else ""
                size = before // cut.count
                whole = (size * cut.count, size * cut.many) == (before, after)
                sound &= layer is not None and size in cut.sizes and whole
                groups.setdefault((number, layer or ""), []).append((name, axis, size))
    every = {(number, layer) for number, cut in enumerate(cuts) for layer in (blocks if cut.apart else [""])}
    sound &= keeps is None or still == {*blocks}
    if not sound or not blocks or not every <= groups.keys() or not _runs(kept):
        kind = net.config.get_text_config().model_type
        why = f"{kind} has no smaller form with fewer {what} in each layer"
        raise MeshError(why, instead="layers: {drop: 1}, neurons: {share: 0.5} or magnitude: {share: 0.5}")
    assert kept is not None
    chosen = {key: _chosen(old, parts, cuts[key[0]]) for key, parts in groups.items()}  # of all as they are
    for key, parts in groups.items():
        for name, axis, size in parts:
            rows = (torch.tensor(chosen[key])[:, None] * size + torch.arange(size)).flatten()
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


def _runs(net: Any) -> bool:
    """Whether a network forwards two tokens, or an image; one without memory is believed."""
    one = next(net.parameters())
    if one.is_meta:
        return True
    config, name = net.config, net.main_input_name
    if name == "input_ids":
        given = {name: torch.ones(1, 2, dtype=torch.int64, device=one.device)}
        given |= {"decoder_input_ids": given[name]} if config.is_encoder_decoder else {}
    else:
        size = getattr(config, "image_size", 224)
        height, width = (size, size) if isinstance(size, int) else size
        given = {name: torch.zeros(1, config.num_channels, height, width, dtype=one.dtype, device=one.device)}
    training = net.training
    try:
        net.eval()(**given)
    except Exception:  # of each architecture its own
        return False
    finally:
        net.train(training)
    return True


def _blocks(net: nn.Module) -> list[str]:
    """The layers, by how the names of their weights begin."""
    count = net.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    lists = [path for path, part in net.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    return [f"{lists[0]}.{number}." for number in range(count)] if lists else []


def _chosen(state: Mapping[str, Tensor], parts: Sequence[tuple[str, int, int]], cut: Cut) -> list[int]:
    """The units that are left, in order: those whose parts of the matrices have the largest product of norms."""
    if isinstance(cut.left, list):
        return cut.left
    if any(state[name].is_meta for name, _, _ in parts):
        return list(range(cut.left))  # without memory only shapes matter
    score = torch.zeros(cut.count, dtype=torch.float64)
    for name, axis, size in parts:
        if state[name].dim() > 1:
            own = state[name].cpu().double().movedim(axis, 0).reshape(cut.count, size, -1)
            score += own.pow(2).sum((1, 2)).log()
    return sorted(score.argsort(descending=True, stable=True)[: cut.left].tolist())
