"""What an entry of the store is found by: who said it, and what was asked, in words and as one hash."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from kdmesh.errors import MeshError

DIGEST = 64  # hexadecimal digits of an entry's name
MEASURED = 256  # samples of each forward in which agents are measured; who teaches has forwards of a size of its own


@dataclass(frozen=True)
class EntryKey:
    """One producer's one signal. Two keys are the same where their canonical JSON is.

    Attributes:
        producer: what the values depend on: the weights' sha256, the module's identity, exit, tap, mapping of labels,
            view and its settings, preprocessing, tokenizer, template, dtype, forward size; of a served model its
            endpoint, build and file's hash. Whatever can change a value belongs here.
        signal: which output, the offer's settings, and the form that values are kept in.
    """

    producer: Mapping[str, Any]
    signal: Mapping[str, Any]

    def __post_init__(self) -> None:
        _refuse(self.producer, "producer")
        _refuse(self.signal, "signal")

    @cached_property
    def canonical(self) -> bytes:
        """The key as JSON: keys sorted, no spaces, ASCII, floats as Python's ``repr``."""
        return canonical({"producer": self.producer, "signal": self.signal})

    @cached_property
    def digest(self) -> str:
        """The sha256 of :attr:`canonical`, 64 hexadecimal digits: the name of the entry's folder."""
        return sha256(self.canonical).hexdigest()

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntryKey) and self.canonical == other.canonical


def canonical(value: Any) -> bytes:
    """JSON of which there is one way to write: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain).encode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _refuse(value: Any, where: str) -> None:
    """MeshError for what JSON would change, or could not say: two unlike keys must never look alike."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            if type(name) is not str:
                raise MeshError(f"{name!r} names a part of the key and is no text", where=where, instead="text")
            _refuse(one, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            _refuse(one, f"{where}.{number}")
    elif type(value) is float and not math.isfinite(value):
        raise MeshError(f"{value} cannot stand in a key of the store", where=where, instead="a finite number, or text")
    elif value is not None and type(value) not in (str, bool, int, float):
        kind = type(value).__name__
        raise MeshError(f"a {kind} cannot stand in a key of the store", where=where, instead="what JSON can say")
