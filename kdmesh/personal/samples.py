"""All texts of a sample, and the sample with these changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kdmesh.streams.texts import Sample, Turn


class Field(NamedTuple):
    """A text of a sample, and the name of the field that it is in."""

    name: str
    text: str


Change = Callable[[str], str]
"""Gives a text as it is to stand."""


def fields(sample: Sample) -> Iterator[Field]:
    """Every text that a model may see of a sample, also what stands in the JSON of tools and their calls."""
    if sample.text:
        yield Field("text", sample.text)
    for name in ("pair", "prompt"):
        if value := getattr(sample, name):
            yield Field(name, value)
    for turn in sample.messages or ():
        yield from _of_turn("messages", turn)
    if sample.tools is not None:
        yield from (Field("tools", one) for one in _strings(json.loads(sample.tools)))
    yield from (Field("candidates", one) for one in sample.candidates or ())
    if isinstance(sample.rejected, str):
        yield Field("rejected", sample.rejected)
    elif sample.rejected is not None:
        yield from _of_turn("rejected", sample.rejected)


def with_changes(sample: Sample, change: Change, spans: tuple[tuple[int, int, str], ...] | None) -> Sample:
    """The sample with every such text changed; ``spans``: the tags of its text, where that is changed."""
    rejected = sample.rejected
    if isinstance(rejected, str):
        rejected = change(rejected)
    elif rejected is not None:
        rejected = _turn(rejected, change)
    return replace(
        sample,
        text=change(sample.text),
        pair=None if sample.pair is None else change(sample.pair),
        prompt=None if sample.prompt is None else change(sample.prompt),
        messages=None if sample.messages is None else tuple(_turn(one, change) for one in sample.messages),
        tools=None if sample.tools is None else json.dumps(_mapped(json.loads(sample.tools), change)),
        candidates=None if sample.candidates is None else tuple(map(change, sample.candidates)),
        rejected=rejected,
        spans=spans,
    )


def _of_turn(name: str, turn: Turn) -> Iterator[Field]:
    yield Field(name, turn[1])
    if len(turn) > 2:
        yield from (Field(name, one) for one in _strings(json.loads(turn[2])))


def _turn(turn: Turn, change: Change) -> Turn:
    if len(turn) > 2:
        return turn[0], change(turn[1]), json.dumps(_mapped(json.loads(turn[2]), change))
    return turn[0], change(turn[1])


def _strings(value: Any) -> Iterator[str]:
    """The strings in JSON, keys of objects left out: a schema's names, and not what is said."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _mapped(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(one, change) for key, one in value.items()}
    return [_mapped(one, change) for one in value] if isinstance(value, list) else value
