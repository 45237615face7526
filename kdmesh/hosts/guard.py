"""What comes from others' code is checked where it comes in, and what goes to it is kept from it.

An error is a ValueError; who calls says whose code it was. Type, shape, dtype, device, whether a gradient is attached
and whether something was changed in place are looked at in every call: none of it makes a device wait.
"""

from __future__ import annotations

import math
import random
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.signals import codecs
from kdmesh.signals.lazy import Lazy, leaves
from kdmesh.streams.splits import OFFICIAL
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Texts
from kdmesh.streams.unread import Unread
from kdmesh.streams.views import Mixed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

DEAD, SOFTENED, MOVED = "dead", "softened", "moved"
Oddity = tuple[str, str, str]
"""What is odd about answers: the agent, the stream ("" where it is the same on each), and DEAD or SOFTENED.

Or the agent, the path of a buffer that its answers move in eval mode, and MOVED.
"""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WIDE = {kind: torch.promote_types(kind, torch.float32) for kind in FLOATS}
"""The type of a loss by that of the student's signal; also of what is made of a signal, where that is widened."""
LOSSES = {kind: {wide, torch.float64} for kind, wide in WIDE.items()}
"""The types that a loss may have, likewise: in double precision it is none the worse."""
EITHER = (Tensor, Lazy)  # asked in every call, where a union takes longer
LOOK = 50  # steps of which the numbers that plugins give are looked at in one, where looking is dear
SMALL = 2**20  # numbers of a tensor of which a copy is kept, to see whether it was changed
HUGE = 2**63  # of whole numbers, beyond which readers of JSON differ
OURS = "kdmesh.builtin."  # made here, and tested to give and to keep what it should


@contextmanager
def seeded(seed: int, *, strict: bool = False, ours: bool = False) -> Iterator[None]:
    """Seed the default generators of torch, numpy and Python, and put all back as they were.

    With ``strict`` it is a ValueError to draw from one. ``ours``: code that draws from torch's alone, as all here does.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    apart = nullcontext() if ours else others_seeded(seed)
    with torch.random.fork_rng(devices=devices), apart, nullcontext() if ours else alone():
        _seed(seed)
        before = _states() if strict else None
        yield
        if before is not None and before != _states():
            raise ValueError("it draws from a global generator, so its values depend on what ran before")


def _seed(seed: int) -> None:
    """As `torch.manual_seed`, which formats a stack for each kind of device that there is not: 0.2 ms a call."""
    torch.default_generator.manual_seed(seed)
    if torch.backends.cuda.is_built():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def others_seeded(seed: int) -> Iterator[None]:
    """Seed the default generators of numpy and Python, and put these back as they were."""
    theirs, own = np.random.get_state(), random.getstate()  # it is the global one that is guarded
    try:
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        np.random.set_state(theirs)
        random.setstate(own)


def _states() -> tuple[bytes, bytes, Any]:
    """Where the three generators stand."""
    numpy: Any = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), numpy[1].tobytes() + bytes([numpy[2] % 256]), random.getstate()


def same(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors are equal to the bit, NaN included, wherever they lie."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    mine, theirs = (part.detach().cpu().contiguous().flatten().view(torch.uint8) for part in (one, two))
    return torch.equal(mine, theirs)


def placed(device: torch.device) -> torch.device:
    """Where tensors are that are made on a device: on `cuda:0`, say, of `cuda`, which is not equal to it."""
    return torch.empty(0, device=device).device


def sparse(value: Any) -> bool:
    """Whether a tensor's layout is not the usual one: what is compared and combined has a place for each number."""
    return isinstance(value, Tensor) and value.layout is not torch.strided


def told(value: Any) -> str:
    """What a value is, for an error: shape and type of a tensor, else its class."""
    if isinstance(value, Tensor | Lazy):
        apart = "" if value.device.type == "cpu" else f", on {value.device}"
        layout = "" if isinstance(value, Lazy) or value.layout == torch.strided else f", {value.layout}"
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype}{apart}{layout}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def is_dead(value: Tensor | Lazy) -> bool:
    """Whether some row of an answer holds NaN, an infinite number, or nothing else than -inf, which masks a class."""
    parts = [*leaves(value), value.rows(0, 1)] if isinstance(value, Lazy) and len(value) else leaves(value)
    return any(
        not bool(part.flatten(1).amax(1).isfinite().all())
        for part in parts
        if isinstance(part, Tensor) and part.is_floating_point() and part.dim() > 1 and part.numel()  # no logits: None
    )


def is_softened(value: Tensor | Lazy) -> bool:
    """Whether answers look like probabilities, where logits are due: rows within [0, 1] that sum to 1.

    Of two classes and more: rows of one output tell nothing. Logarithms of probabilities are logits like any other:
    a softmax, at any temperature, does not see what is added to a whole row.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() != 2 or value.shape[1] < 2:
        return False
    if not len(value) or not bool(((value >= 0) & (value <= 1)).all()):
        return False
    close = max(1e-4, torch.finfo(value.dtype).eps)
    return bool(((value.float().sum(1) - 1).abs() <= close).all())


def marks(values: Collection[Any]) -> list[int]:
    """Numbers that rise where someone works in place on one of these; 0 of what keeps no count."""
    try:
        return [
            value._version if isinstance(value, Tensor) else 0 if value is None else _mark(value) for value in values
        ]
    except RuntimeError:  # some were made in torch.inference_mode
        return [_mark(value) for value in values]


def both_marks(one: Any, two: Any) -> tuple[int, int]:
    """The same of two, in less time."""
    try:
        return one._version, two._version
    except (AttributeError, RuntimeError):
        return _mark(one), _mark(two)


def _mark(value: Any) -> int:
    """The number of one value, or of all in a list."""
    if isinstance(value, Tensor):
        return 0 if value.is_inference() else value._version
    return sum(map(_mark, value)) if isinstance(value, list) else 0


def refuse_worked_on(names: Iterable[str], before: list[int], after: list[int]) -> None:
    """Raise ValueError, with the first of these names, where marks differ."""
    if before != after:
        which = next(name for name, one, two in zip(names, before, after, strict=False) if one != two)
        raise ValueError(f"it changes `{which}`, which it is given, in place (others read it, too: use a copy)")


def copies(values: Collection[Any]) -> list[Tensor | None]:
    """What tensors hold, apart from them; None of others, and of such as are too large for it."""
    return [one.detach().clone() if isinstance(one, Tensor) and one.numel() <= SMALL else None for one in values]


def refuse_written_on(names: Sequence[str], given: Sequence[Any], kept: Sequence[Tensor | None]) -> None:
    """Raise ValueError, with the first of these names, where numbers differ: `.data` and numpy leave versions alone."""
    for name, one, two in zip(names, given, kept, strict=False):
        if two is not None and not same(one, two):
            raise ValueError(f"it changes `{name}`, which it is given, in place (others read it, too: use a copy)")


@contextmanager
def alone() -> Iterator[None]:
    """Put back what torch has one of in a process; ValueError where code of a plugin has switched it."""
    grad, kind = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        now = torch.is_grad_enabled(), torch.get_default_dtype()
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(kind)
    for was, name, one in zip((grad, kind), ("set_grad_enabled", "set_default_dtype"), now, strict=True):
        if one != was:
            raise ValueError(f"it leaves torch.{name}({one}) behind, for all that runs in this process")


def refuse_loss(loss: Any, own: Any) -> None:
    """Raise ValueError for what is no loss of the signal ``own``, with a gradient where that has one.

    It may be wider than that. A loss of 0 may be without gradient: of a batch in which there is nothing to compare.
    """
    good = isinstance(loss, Tensor) and not loss.dim() and loss.layout is torch.strided and loss.device == own.device
    if not good or loss.dtype not in LOSSES.get(own.dtype, ()):
        if isinstance(loss, Tensor) and not loss.dim() and loss.is_floating_point() and loss.layout is torch.strided:
            kind = WIDE.get(own.dtype, torch.float32)
            raise ValueError(f"it gave a loss of {loss.dtype} on {loss.device}, not of {kind} on {own.device}")
        raise ValueError(f"it gave {told(loss)}, not a loss: a tensor without axes, of floating point")
    if not loss.requires_grad and own.requires_grad and torch.is_grad_enabled() and loss.item() != 0:
        raise ValueError("it gave a loss that is detached from the signal it is given, so it trains nothing")


def reaches(loss: Tensor, own: Any) -> bool:
    """Whether a gradient passes from one tensor back to another: by its graph, so that nothing is computed."""
    goal, seen, left = own.grad_fn, set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        if node is goal or getattr(node, "variable", None) is own:
            return True
        seen.add(node)
        left += [one for one, _ in node.next_functions]
    return loss is own


def refuse_apart(loss: Tensor, own: Any) -> None:
    """Raise ValueError for a loss whose gradient does not pass to the signal ``own``: it moves other weights alone."""
    learns = isinstance(own, Tensor) and own.requires_grad and loss.requires_grad
    if learns and not reaches(loss, own) and loss.item() != 0:
        raise ValueError(
            "it gave a loss whose gradient does not reach the signal it is given, so it trains nothing there"
        )


def refuse_values(value: Any, shape: Sequence[int], like: Any, gradient: bool = False) -> None:
    """Raise ValueError for what is no tensor of this shape, of the floating point of ``like``, and on its device.

    ``gradient``: one is to pass through it, where gradients are in force.
    """
    good = isinstance(value, EITHER) and value.shape == shape and value.device == like.device and not sparse(value)
    if not good or value.dtype not in (like.dtype, WIDE[like.dtype]):
        on = "" if like.device.type == "cpu" else f" on {like.device}"
        raise ValueError(f"it gave {told(value)}, not a tensor of shape {tuple(shape)}, {like.dtype}{on}")
    if gradient and not value.requires_grad and torch.is_grad_enabled():
        raise ValueError("it gave something without gradient, and one is to pass through it")


def refuse_answers(value: Any, x: Any, shape: Sequence[int], device: torch.device, kind: torch.dtype | None) -> None:
    """Raise ValueError for what are no answers about samples ``x``, each of a ``shape``, of floating point.

    Of texts, which may have several, one after the other, rows are not counted. ``kind``: their type before.
    """
    rows = len(x) if isinstance(x, Tensor) else value.shape[0]
    fits = (
        value.device == device
        and not sparse(value)
        and (value.dtype == kind or (kind is None and value.dtype.is_floating_point))
    )
    if not fits or value.shape != (rows, *shape):
        columns = ", ".join(map(str, (rows, *shape)))
        raise ValueError(f"it gave {told(value)}, not [{columns}] of {kind or 'floating point'} on {device}")


def answers(given: Any, abstains: bool) -> tuple[Any, Tensor | None]:
    """What a rule gave, and whom it answered ``[B]`` bool, None for everyone; ValueError where it may not abstain."""
    if not isinstance(given, tuple):
        return given, None
    if not abstains:
        raise ValueError(
            "it gave a tuple, as a rule that says who was answered, and its offer does not say abstains=True"
        )
    if len(given) != 2:
        raise ValueError(f"it gave a tuple of {len(given)}, not (values, answered)")
    value, who = given
    rows = len(value) if isinstance(value, Tensor) and value.dim() else 0
    if not isinstance(who, Tensor) or who.dtype != torch.bool or who.shape != (rows,) or who.device != value.device:
        raise ValueError(f"it gave {told(who)} as who was answered, not [{rows}] of torch.bool beside its values")
    return value, who


def report(of: Any) -> dict[str, float]:
    """What an objective or a rule says of itself, kept as JSON; an error for what are no finite numbers by name."""
    figures: Any = getattr(of, "report", dict)()
    if not isinstance(figures, dict):
        raise TypeError(f"it gave {told(figures)}, not numbers by name")
    for name, value in figures.items():
        if not isinstance(name, str) or not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"it gave {told(value)} as {name!r}, not a number{_as_number(value)} by its name")
        if isinstance(value, int) and abs(value) >= HUGE:
            raise ValueError(f"it gave a whole number of {value.bit_length():,} bits as {name!r}")
        if value - value != 0:  # NaN or infinite, which JSON has not
            raise ValueError(f"it gave {value} as {name!r}, which is not finite: leave out what is not known")
    return figures


def refuse_signal(value: Any, made_of: Any, shape: Sequence[int] | None, form: str = "hidden") -> None:
    """Raise ValueError for what is no signal ``made_of`` this: with as many rows, of its type, on its device.

    ``shape``: of a row, where it is known. A signal of ``form`` `hidden` may be of any type.
    """
    rows = made_of.shape[0]
    own = value.shape if isinstance(value, EITHER) else ()
    if not own or own[0] != rows or sparse(value):
        raise ValueError(f"it gave {told(value)}, not a tensor with {rows} rows, one for each that it is given")
    if shape is not None and own[1:] != shape:
        raise ValueError(f"it gave {told(value)}, not rows of shape {tuple(shape)}, as is due")
    if value.device != made_of.device:
        raise ValueError(f"it gave {told(value)}, made of a value on {made_of.device}")
    if form != "hidden" and value.dtype not in (made_of.dtype, WIDE.get(made_of.dtype)):
        raise ValueError(f"it gave {told(value)}, made of a value of {made_of.dtype}")


def refuse_figure(value: Any, single: bool) -> None:
    """Raise ValueError for what is no figure of a metric: a number, where it is not ``single`` plain data; or None."""
    if isinstance(value, int) and abs(value) >= HUGE:
        raise ValueError(f"it gave a whole number of {value.bit_length():,} bits")
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return
    if single:
        raise ValueError(f"it gave {told(value)}, not a number{_as_number(value)}, or None where it is not defined")
    _refuse_data(value)


def _as_number(value: Any) -> str:
    """How to make a number of one that is none of Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return " (of numpy's: value.item())"
    return " (of a tensor: value.item())" if isinstance(value, Tensor) else ""


def _refuse_data(value: Any) -> None:
    """Raise ValueError for what is not made of lists, mappings by name, texts and numbers."""
    if isinstance(value, list | tuple):
        for one in value:
            _refuse_data(one)
    elif isinstance(value, dict) and all(isinstance(name, str) for name in value):
        for one in value.values():
            _refuse_data(one)
    elif not (value is None or isinstance(value, str | int | float)):
        raise ValueError(f"it gave {told(value)} where plain data are due: lists, numbers, texts (value.tolist())")


def refuse_each(value: Any, scores: Tensor) -> None:
    """Raise ValueError for what is not one number for each row of answers."""
    good = isinstance(value, Tensor) and value.shape == scores.shape[:1] and not value.is_complex()
    if not good or value.device != scores.device:
        what = tuple(value.shape) if isinstance(value, Tensor) and value.shape != scores.shape[:1] else told(value)
        raise ValueError(f"each() gave {what} for {len(scores)} rows, not one number a row, beside them")


def refuse_codec(value: Any) -> None:
    """Raise ValueError for a lazy signal that says what it is packed as, and is not restored from that."""
    if not isinstance(value, Lazy) or (parts := value.pack()) is None:
        return
    if not isinstance(parts, dict) or not all(isinstance(part, Tensor) for part in parts.values()):
        raise ValueError(f"its pack gave {told(parts)}, not tensors by name")
    if type(value) not in codecs.KINDS.values():
        known = f"{type(value).__module__}:{type(value).__qualname__}"
        raise ValueError(
            f"it gave a {type(value).__name__}, which is packed, and its offer does not say codec={known!r}"
        )
    back = codecs.restore(*codecs.pack(value))
    if type(back) is not type(value) or (back.shape, back.dtype) != (value.shape, value.dtype):
        raise ValueError(f"it gave {told(value)}, and what its codec restores is {told(back)}")


def refuse_changed(given: Any, kept: Any, strict: bool) -> None:
    """Raise ValueError, if ``strict``, where someone worked in place on what was ``given``, a copy of ``kept``."""
    if strict and isinstance(given, Tensor) and not torch.equal(given.nan_to_num(), kept.nan_to_num()):
        raise ValueError("it changes what it is given in place")


def finite(value: Tensor) -> bool:
    """Whether all numbers are finite: mostly told by their sum. It makes a GPU wait."""
    value = value.detach()
    return math.isfinite(value.sum().item()) or all(math.isfinite(end.item()) for end in value.aminmax())


def refuse_decision(answer: Any) -> bool:
    """What a gate said, as a bool; ValueError for what is none."""
    if isinstance(answer, Tensor) and answer.numel() == 1 and answer.dtype == torch.bool:
        return bool(answer)
    if not isinstance(answer, bool | np.bool_):
        raise ValueError(f"it gave {told(answer)}, not a bool")
    return bool(answer)


def refuse_factors(answer: Any, rows: int, device: torch.device | None = None) -> Tensor:
    """What a gate gave for so many rows; ValueError for what is no finite factor of 0 or more for each.

    ``device``: where they are due, if that is known.
    """
    if not isinstance(answer, Tensor) or answer.shape != (rows,) or not answer.is_floating_point():
        raise ValueError(f"it gave {told(answer)}, not factors [{rows}] of floating point, one for each row")
    if device is not None and answer.device != device:
        raise ValueError(f"it gave {told(answer)}, not factors on {device}")
    refuse_below_0(answer, "factors")
    return answer


def refuse_below_0(value: Tensor, what: str) -> None:
    """Raise ValueError for numbers that are not all finite and 0 or more. It makes a GPU wait."""
    low, high = (end.item() for end in value.detach().aminmax()) if value.numel() else (0.0, 0.0)
    if not 0 <= low <= high < float("inf"):
        raise ValueError(f"it gave {what} from {low:.4g} to {high:.4g}, which must be finite and 0 or more")


def plain(value: Tensor) -> bool:
    """Whether a tensor is on the CPU, without gradient, and not sparse."""
    return value.device.type == "cpu" and value.layout == torch.strided and not value.requires_grad


def refuse_table(table: Any) -> None:
    """Raise ValueError for what is no table: see :class:`kdmesh.streams.table.Table` for what each field holds."""
    if not isinstance(table, Table):
        raise ValueError(f"it gave {told(table)}, not a kdmesh.streams.table.Table")
    x, y, count = table.x, table.y, table.classes
    if isinstance(x, Unread):
        x = x[:1]  # the rest is read when it is asked for
        x = x.expand(len(table.x), *x.shape[1:])
    if not isinstance(x, Texts):
        if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.dim() < 2 or not x.numel() or not plain(x):
            more = ", with a gradient" if isinstance(x, Tensor) and x.requires_grad else ""
            raise ValueError(f"its x is {told(x)}{more}, not samples [N, ...] of torch.float32")
        if not x.isfinite().all():
            raise ValueError(f"its x is not finite in row {int((~x.isfinite().flatten(1).all(1)).nonzero()[0])}")
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f"its classes is {count!r}, not how many classes there are")
    if isinstance(y, Tensor) and not plain(y):
        more = ", with a gradient" if y.requires_grad else ""
        raise ValueError(f"its y is {told(y)}{more}, not labels on the CPU")
    known = torch.ones(len(x), dtype=torch.bool)
    pool = table.official.get("transfer")
    if (
        isinstance(pool, Tensor)
        and pool.dtype == torch.int64
        and len(pool)
        and 0 <= int(pool.min()) <= int(pool.max()) < len(x)
    ):
        known[pool] = False  # a sample of it needs no label
    if isinstance(y, Tensor) and y.is_floating_point():
        if y.dtype != torch.float32 or y.dim() != 2 or len(y) != len(x) or not y.shape[1]:
            raise ValueError(f"its y is {told(y)}, not values [{len(x)}, T] of torch.float32")
        if bool((odd := ~y.isfinite().all(1) & known).any()):
            raise ValueError(f"its y is not finite in row {int(odd.nonzero()[0])}")
        if count:
            raise ValueError(f"its y are values, and it has {count} classes")
    elif isinstance(y, Tensor) and y.dim() > 1:
        if y.dtype != torch.int64 or y.dim() != 2 or len(y) != len(x) or not y.shape[1]:
            raise ValueError(f"its y is {told(y)}, not indicators [{len(x)}, K] of torch.int64")
        if bool((odd := ((y != 0) & (y != 1)).any(1) & known).any()):
            raise ValueError(f"its y is not 0 or 1 in row {int(odd.nonzero()[0])}")
        if count:
            raise ValueError(f"its y are indicators, and it has {count} classes")
    elif y is not None:
        if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != (len(x),):
            raise ValueError(f"its y is {told(y)}, not a label of torch.int64 for each of {len(x)} samples")
        own = y[known]
        if len(own) and not 0 <= int(own.min()) <= int(own.max()) < count:
            raise ValueError(
                f"its labels are {int(own.min())} to {int(own.max())}, not 0 to {count - 1} as of {count} classes"
            )
    columns = y.shape[1] if isinstance(y, Tensor) and y.dim() == 2 else count
    if table.labels and len(table.labels) != columns and not (table.is_text and y is None):
        raise ValueError(f"it names {len(table.labels)} labels for {columns} {table.kind or 'classes'}")
    for name, rows in table.official.items():
        if name not in OFFICIAL:
            raise ValueError(f"it has an official split {name!r}; there are {', '.join(OFFICIAL)}")
        if not isinstance(rows, Tensor) or rows.dtype != torch.int64 or rows.dim() != 1:
            raise ValueError(f"its official split {name!r} is {told(rows)}, not row numbers [n] of torch.int64")
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(x):
            low, high = int(rows.min()), int(rows.max())
            raise ValueError(f"its official split {name!r} has rows {low} to {high}, and there are {len(x)}")
    for name, values in table.columns.items():
        if len(values) != len(x):
            raise ValueError(f"its column {name!r} has {len(values)} values for {len(x)} samples")
        for value in values:
            if not isinstance(value, str):
                raise ValueError(f"its column {name!r} holds {told(value)}, not text")


def refuse_written(given: Any, size: int, table: Table, labelled: bool) -> None:
    """Raise ValueError for what is no batch of ``size`` samples like those of a table, with labels and ids."""
    if not isinstance(given, tuple) or len(given) != 3:
        raise ValueError(f"it gave {told(given)}, not a tuple of x, y and ids")
    x, y, ids = given
    shape = (size, *table.shape)
    if not isinstance(x, Tensor) or tuple(x.shape) != shape or x.dtype != torch.float32:
        raise ValueError(f"its x is {told(x)}, not samples {list(shape)} of torch.float32")
    if x.device.type == "cpu" and not finite(x):  # elsewhere to ask makes a GPU wait
        raise ValueError("its x is not finite")
    if not isinstance(ids, Tensor) or ids.shape != (size,) or ids.dtype != torch.int64:
        raise ValueError(f"its ids are {told(ids)}, not one of torch.int64 for each of {size} samples")
    if not labelled:
        if y is not None:
            raise ValueError("it gave labels, and the stream has none: `labels: false`, or `of` one without")
        return
    if table.y is None:
        return
    wanted = (size, *table.y.shape[1:])
    if not isinstance(y, Tensor) or tuple(y.shape) != wanted or y.dtype != table.y.dtype:
        raise ValueError(f"its y is {told(y)}, not labels {list(wanted)} of {table.y.dtype}; or say `labels: false`")
    if (
        table.classes
        and y.dim() == 1
        and y.device.type == "cpu"
        and not 0 <= int(y.min()) <= int(y.max()) < table.classes
    ):
        raise ValueError(f"its labels are {int(y.min())} to {int(y.max())}, not 0 to {table.classes - 1}")


def mixed(value: Any, x: Tensor) -> Mixed:
    """What a view gave that mixes a batch ``x [B, ...]``. Raise ValueError for what does not say what it mixed."""
    if not (isinstance(value, tuple) and len(value) == 3):
        raise ValueError(f"it gave {told(value)}, not (x, partner, share)")
    seen, partner, share = value
    whole = isinstance(partner, Tensor) and partner.shape == x.shape[:1] and partner.dtype is torch.int64
    if not whole or partner.device != x.device or bool(((partner < 0) | (partner >= len(x))).any()):
        raise ValueError(f"its partner is {told(partner)}, not the places of {len(x)} samples, int64")
    one = isinstance(share, float) and 0 <= share <= 1
    each = isinstance(share, Tensor) and share.shape == x.shape[:1] and share.dtype is torch.float32
    if not one and not (each and share.device == x.device and bool(((share >= 0) & (share <= 1)).all())):
        what = told(share) if isinstance(share, Tensor) else repr(share)
        raise ValueError(f"its share is {what}, neither a float of 0 to 1 nor one for each sample, float32")
    return Mixed(seen, partner, share)


def refuse_view(value: Any, x: Tensor, numbers: bool = True) -> None:
    """Raise ValueError for what is no augmented ``x``: of its shape, type and device.

    ``numbers``: look whether they are finite, too.
    """
    same = isinstance(value, Tensor) and value.shape == x.shape and value.dtype is x.dtype and value.device == x.device
    if not same or value.layout is not torch.strided:
        raise ValueError(f"it gave {told(value)}, of {told(x)}: an augmentation keeps shape and type")
    if value.requires_grad:
        raise ValueError("it gave samples that require a gradient")
    # Their sum tells, mostly. Elsewhere than on a CPU to ask makes the device wait.
    if numbers and x.is_cpu and not math.isfinite(value.sum().item()) and not finite(value) and finite(x):
        raise ValueError("it gave samples that are not finite, of samples that are")
