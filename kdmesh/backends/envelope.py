"""Calls and results as bytes: one small pickle each, in place of several objects that Ray serialises one by one.

Ray takes bytes as they are. Anything else goes through its Python serialiser, argument by argument, which takes longer
than the call itself: a call with its number, method and fragment was measured to take the driver 250 µs of CPU time so
and 140 µs as bytes, and its host 520 and 360. Large arrays stay objects: Ray shares these between processes without a
copy.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL = 64 * 1024  # bytes


def call(number: Any, method: str, args: Sequence[Any], results: int, handle: type) -> tuple[bytes, list[Any]]:
    """A call as bytes, and what travels beside it: arguments that are files or handles (of type ``handle``)."""
    places = [place for place, arg in enumerate(args) if isinstance(arg, handle) or _files(arg)]
    plain, beside = list(args), [args[place] for place in places]
    for place in places:
        plain[place] = None
    return pickle.dumps((number, method, plain, places, results), protocol=5), beside


def opened(packed: bytes, arrived: Sequence[Any]) -> tuple[Any, str, list[Any], int]:
    """The sequence number, method, arguments and number of results of a call; ``arrived``: what came beside it."""
    number, method, args, places, results = pickle.loads(packed)
    for place, one in zip(places, arrived, strict=True):
        args[place] = value(one)
    return number, method, args, results


def result(value: Any) -> Any:
    """A small value as bytes, any other as it is."""
    if _files(value):
        return value
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)  # arrays are not copied into it
    if len(head) + sum(buffer.raw().nbytes for buffer in buffers) > SMALL and not isinstance(value, bytes):
        return value
    return pickle.dumps(value, protocol=5) if buffers else head


def value(result: Any) -> Any:
    """What :func:`result` was given."""
    return pickle.loads(result) if isinstance(result, bytes) else result


def _files(value: Any) -> bool:
    """Whether these are large files by name, as of a checkpoint: to look at their pickle would be a copy more."""
    return isinstance(value, dict) and any(isinstance(part, bytes) and len(part) > SMALL for part in value.values())
