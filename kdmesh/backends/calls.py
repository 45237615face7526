"""The calls of a host in another organisation's process: of what each is made, and what its result may be.

Both ends check by the same plan. A result that another host may read stays where it was made, under the number of its
call, until that host is known; so what is for its own host never leaves it.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from kdmesh.backends.results import PUBLISHED, RESULTS, SIGNALS, STATE
from kdmesh.contracts.task import Chance
from kdmesh.errors import RunFailed
from kdmesh.graph.edges import LABELS
from kdmesh.graph.fragment import Fragment
from kdmesh.graph.steps import Op
from kdmesh.hosts.checkpoint import part_names
from kdmesh.hosts.export import Export
from kdmesh.hosts.packing import VALUE
from kdmesh.hosts.profile import Row
from kdmesh.hosts.publications import Key
from kdmesh.hosts.state import Kept
from kdmesh.hosts.step import Losses, Report, Turn
from kdmesh.signals.codecs import DENSE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.packing import Packed, Published
    from kdmesh.streams.stream import Stream

    Shapes = Mapping[tuple[str, str], torch.Size]

BESIDE = {"present": ("bool",), "starts": ("int64",), "errors": ("float32", "float64")}
"""Of what may be beside the values of a publication, its types."""
STAYS = {*SIGNALS, "export_state"}
"""Methods whose results stay where they were made until another host needs them."""


class Unlike(RunFailed):
    """What came is not what was to come."""


class Stay(NamedTuple):
    """In the place of an argument: the number of the call whose result it is, on the host that is called."""

    number: int


class Signature(NamedTuple):
    """Of a method: its arguments, of which those from ``least`` on may be left out, and of what any more are."""

    arguments: tuple[TypeAdapter[Any], ...]
    least: int
    more: TypeAdapter[Any] | None = None


class Calls:
    """What travels between a party and its coordinator, by the plan that both have.

    ``shapes``, ``statistics``: as of a host's configuration; ``outputs``: how many an agent without `labels` has.
    """

    def __init__(
        self, plan: Plan, streams: Mapping[str, Stream], shapes: Shapes, statistics: Shapes, outputs: int
    ) -> None:
        self.plan, self.streams = plan, streams
        self.shapes, self.statistics, self.outputs = shapes, statistics, outputs

    # -- arguments -------------------------------------------------------------------------------------------------

    def arguments(self, method: str, args: Sequence[Any]) -> list[Any]:
        """Arguments as they are sent: named tuples and fragments as tuples."""
        if method == "run":
            one: Fragment = args[0]
            steps = [(step, None if ops is None else [tuple(op) for op in ops]) for step, ops in one.work()]
            if any(one.exports.values()) or len(args) > 1:
                raise Unlike("steps that read another party's, which none does")
            complete = [step for step, _ in steps if step in one.complete]
            return [(one.host, one.stage, one.level, steps, complete)]
        return [_plain(arg) for arg in args]

    def called(self, method: str, args: Sequence[Any]) -> list[Any]:
        """Arguments as a host takes them, of what came; Unlike for others than its method takes.

        In the place of one may stand a :class:`Stay`, which stays.
        """
        signature = ARGUMENTS.get(method)
        if signature is None:
            raise Unlike(f"a call of {method!r:.40}")
        kinds, least, more = signature
        if len(args) < least or (len(args) > len(kinds) and more is None):
            raise Unlike(f"{len(args)} arguments of {method}")
        found = []
        for number, arg in enumerate(args):
            kind = kinds[number] if number < len(kinds) else more
            assert kind is not None
            stays = isinstance(arg, Stay)
            found.append(arg if stays else _valid(kind, arg, f"argument {number} of {method}"))
        if method == "run":
            host, stage, level, steps, complete = found[0]
            steps = [(step, None if ops is None else [Op(*op) for op in ops]) for step, ops in steps]
            return [Fragment(host, stage, level, steps, complete=set(complete))]
        if method == "begin":
            found[5:] = [Turn(*one) for one in found[5:]]
        if more is _SAID:
            first = len(kinds)
            return [*found[:first], *(one if isinstance(one, Stay) else _keyed(one) for one in found[first:])]
        return found

    # -- results ---------------------------------------------------------------------------------------------------

    def told(self, method: str, value: Any) -> Any:
        """A result as it is sent."""
        if method == "run":
            bundle, report = value
            if bundle or report.wrote:
                raise Unlike("steps that give another party something, which none does")
            return (report.losses, [tuple(one) for one in report.odd], [tuple(one) for one in report.flows])
        if method in ("save_agent", "save_rule"):
            return (list(value.files), value.proof)
        if method == "describe":
            chances = {name: facts["chance"] for name, facts in value.items()}
            told = {name: None if one is None else asdict(one) for name, one in chances.items()}
            return {name: {**facts, "chance": told[name]} for name, facts in value.items()}
        return _plain(value)

    def result(self, method: str, value: Any, about: tuple[Any, ...] = (), host: str = "") -> Any:
        """A result as the engine takes it, of what came of a call of ``host`` with arguments ``about``; Unlike for any
        other.
        """
        found = _valid(RESULTS[method], value, f"the result of {method}")
        self._of_its_own(method, found, host)
        if method == "run":
            losses, odd, flows = found
            return Report(losses, odd, [Losses(*one) for one in flows], [])
        if method in ("save_agent", "save_rule"):
            return Export({}, found[1])
        if method == "describe":
            return {name: {**facts, "chance": _chance(facts["chance"])} for name, facts in found.items()}
        if method == "answers":
            return {name: Kept(*kept) for name, kept in found.items()}
        if method == "costs":
            return {**found, "profile": [Row(*one) for one in found["profile"]]}
        if method in SIGNALS:
            return self._published(method, found, about)
        return found

    def _of_its_own(self, method: str, found: Any, host: str) -> None:
        """Refuse what a host says of others than it has, and files that are no part of its own."""
        agents = {*self.plan.hosts[host]} if host in self.plan.hosts else {*self.plan.owner}
        known, named = agents | {*self.plan.consensus}, set[str]()
        if method == "describe" and agents != {*found}:
            raise Unlike(f"the result of describe: of {', '.join(sorted(found)) or 'nobody':.80}")
        if method == "answers":
            known, named = agents | {one for one in self.plan.consensus if self.plan.evaluator(one) == host}, {*found}
        if method == "endpoints":
            named = {*found}
        if method == "costs":
            if agents != {*found["flops"]}:
                raise Unlike(f"the result of costs: of {', '.join(sorted(found['flops'])) or 'nobody':.80}")
            known = agents | {*self.plan.owner, *self.plan.consensus} if not host else agents | {*self.plan.consensus}
            named = {node for nodes in found["seconds"].values() for node in nodes}
        if method == "run":
            known, named = known | {*self.plan.owner}, {*found[0], *(one[0] for one in found[1])}
        if odd := named - known:
            raise Unlike(f"the result of {method}: of {min(odd)!r:.80}, which {host} does not have")
        sums = method != "save" or all(re.fullmatch(b"[0-9a-f]{64}", told) for told in found.values())
        if method == "save" and (not sums or {*found} != {*part_names(host)}):
            raise Unlike(f"the result of save: {', '.join(sorted(found)) or 'nothing':.80}, which is no part of {host}")

    def _published(self, method: str, value: dict[Any, Any], about: tuple[Any, ...]) -> Published:
        """Publications of who was asked, on the stream that was asked: a row for each sample, as wide as they are."""
        found = _keyed(value)
        if method == "publish_consensus":
            source, stream, outputs = about[0], self.base(self.plan.consensus[about[0]].stream), {*about[1]}
        else:
            source, stream = about[:2]
            outputs = {LABELS} if method == "tell_labels" else {about[2]} if isinstance(about[2], str) else {*about[2]}
        for key, packed in found.items():
            if key.source != source or key.stream != stream or key.output not in outputs:
                raise Unlike(f"{key.source} on {key.stream!r}, where {source} on {stream!r} was asked")
            self.refuse_values(key, packed)
        return found

    def base(self, stream: str) -> str:
        """The stream whose samples a stream has."""
        spec = self.plan.spec.streams.get(stream)
        return spec.of if spec is not None and spec.replay else stream

    def refuse_values(self, key: Key, packed: Packed) -> None:
        """Raise Unlike for a publication that has other rows or columns than it must, or numbers that are none."""
        if key.output == LABELS:
            return self._labels(key, packed)
        rows, width = self._rows(key), self._width(key)
        values: np.ndarray | None = None
        for name, kind, parts in packed:
            for part, array, dtype in parts:
                beside = (
                    name in BESIDE and kind == part == DENSE and array.ndim == 1 and dtype == f"torch.{array.dtype}"
                )
                if beside and array.dtype in BESIDE[name] and (name != "present" or len(array) == rows):
                    continue
                if name != VALUE or not kind == part == DENSE or values is not None:
                    raise Unlike(f"a part {name or 'value'!r:.40} ({kind:.40}, {part:.40}) of what {key.source} says")
                values = _floats(array, dtype)
        if values is None:
            raise Unlike(f"nothing of what {key.source} says")
        if not values.ndim or len(values) != rows:
            raise Unlike(
                f"{len(values) if values.ndim else 0:,} rows of {key.source}, where stream {key.stream!r} has {rows:,}"
            )
        if tuple(values.shape[1:]) != width:
            raise Unlike(f"rows of shape {list(values.shape[1:])} of {key.source}, where they have {list(width)}")
        nothing = key.source in self.plan.owner and values.size and np.isneginf(values).reshape(rows, -1).all(1).any()
        if nothing or np.isnan(values).any() or np.isposinf(values).any():
            raise Unlike(f"values of {key.source} that are no numbers")

    def _labels(self, key: Key, packed: Packed) -> None:
        """Raise Unlike for labels that are none of this task, or not of as many samples as there are."""
        rows, kind = self._rows(key), self.plan.task.labels
        shape = (rows,) if kind == "classes" else (rows, self.outputs)
        most = {"classes": self.outputs, "indicators": 2}.get(kind, 0)
        if len(packed) != 1 or packed[0][:2] != (VALUE, DENSE) or len(packed[0][2]) != 1:
            raise Unlike(f"labels of {key.source} that are none")
        _, array, dtype = packed[0][2][0]
        if array.shape != shape or f"torch.{array.dtype}" != dtype or array.dtype != ("int64" if most else "float32"):
            raise Unlike(f"labels of {key.source} of {array.dtype} {list(array.shape)}, where they have {list(shape)}")
        if not (np.isin(array, range(most)) if most else np.isfinite(array)).all():
            raise Unlike(f"labels of {key.source} that there are not")

    def _rows(self, key: Key) -> int:
        if (whole := self.statistics.get((key.source, key.output))) is not None:
            return whole[0]
        stream = self.streams[key.stream]
        return len(stream.rows_for(key.source) if key.source in self.plan.owner else stream.rows)

    def _width(self, key: Key) -> tuple[int, ...]:
        if (whole := self.statistics.get((key.source, key.output))) is not None:
            return tuple(whole[1:])
        if (shape := self.shapes.get((key.source, key.output))) is not None:
            return tuple(shape)
        own = None if key.source in self.plan.consensus else self.plan.spec.agents[key.source].labels
        return (self.outputs if own is None else len(own),)


def _chance(given: Any) -> Chance | None:
    try:
        return None if given is None else Chance(**given)
    except TypeError:
        raise Unlike("the result of describe: a chance that is none") from None


def _plain(value: Any) -> Any:
    """Named tuples as tuples, also within others."""
    if isinstance(value, tuple):
        return value if isinstance(value, Stay) else tuple(_plain(one) for one in value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    return value


def _keyed(value: dict[Any, Any]) -> Published:
    return {Key(*key): packed for key, packed in value.items()}


def _floats(array: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of a packed array; those of bfloat16 as float32. Unlike for an array of another type than it says."""
    half = dtype == "torch.bfloat16"
    if array.dtype not in (("int16",) if half else ("float16", "float32", "float64")) or (
        not half and dtype != f"torch.{array.dtype}"
    ):
        raise Unlike(f"an array of {array.dtype} that is said to be {dtype:.40}")
    if half:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array


def _valid(kind: TypeAdapter[Any], value: Any, what: str) -> Any:
    try:
        return kind.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise Unlike(f"{what}: {first['msg']}{f' at {at}' if at else ''}") from None


_OP = tuple[str, str, str, str]
_FRAGMENT = tuple[str, str, int, list[tuple[int, list[_OP] | None]], list[int]]

_TEXT, _TEXTS = TypeAdapter(str), TypeAdapter(tuple[str, ...])
_TALLY, _WHOLE, _FLAG = TypeAdapter(dict[str, int]), TypeAdapter(int), TypeAdapter(bool)
_NOTHING, _SAID, _WEIGHTS = TypeAdapter(None), TypeAdapter(PUBLISHED), TypeAdapter(STATE)
_MANY = TypeAdapter(dict[str, Any])


def _takes(*kinds: TypeAdapter[Any], least: int | None = None, more: TypeAdapter[Any] | None = None) -> Signature:
    return Signature(kinds, len(kinds) if least is None else least, more)


_TURN = TypeAdapter(tuple[int | None, dict[str, float], Annotated[str, Field(pattern="^([0-9a-f]{16})?$")]])

ARGUMENTS: dict[str, Signature] = {
    "start": _takes(_TEXT, _TALLY),
    "begin": _takes(_TEXT, _TEXT, _TALLY, _WHOLE, _TALLY, _TURN, least=5),
    "end": _takes(_TEXT),
    "run": _takes(TypeAdapter(_FRAGMENT)),
    "publish": _takes(_TEXT, _TEXT, _TEXTS, _FLAG, _TEXT, least=3, more=_SAID),
    "publish_consensus": _takes(_TEXT, _TEXTS, _TEXT, least=2),
    "passed": _takes(_TEXT, _TEXT),
    "commit": _takes(_TEXT, _TEXT, _TEXT),
    "receive": _takes(more=_SAID),
    "tell_labels": _takes(_TEXT, _TEXT),
    "take_labels": _takes(more=_SAID),
    "recall": _takes(_TEXT, _TEXT, _TEXTS),
    "away": _takes(TypeAdapter(dict[str, int]), TypeAdapter(bool)),
    "renew": _takes(TypeAdapter(dict[str, list[str]])),
    "export_state": _takes(_TEXT),
    "take_weights": _takes(_TEXT, TypeAdapter(list[float]), more=_WEIGHTS),
    "evaluate": _takes(_TEXT, _TEXT, more=_SAID),
    "measured_at": _takes(_TEXT, _TALLY),
    "evaluate_consensus": _takes(_TEXT, _TEXT, TypeAdapter(list[str]), more=_SAID),
    "report": _takes(_TEXT),
    "answers": _takes(),
    "keep_best": _takes(_TEXT, TypeAdapter(float)),
    "restore_best": _takes(_TEXT),
    "describe": _takes(),
    "account": _takes(),
    "costs": _takes(),
    "shelved": _takes(),
    "endpoints": _takes(),
    "sees": _takes(_TEXT, _TEXT),
    "save": _takes(_TEXT, _NOTHING),
    "load": _takes(_TEXT, TypeAdapter(dict[str, bytes])),
    "save_agent": _takes(_TEXT, _NOTHING, _MANY),
    "save_rule": _takes(_TEXT, _NOTHING),
}
"""Of the methods that a coordinator may call."""
