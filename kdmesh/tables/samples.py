"""Samples from rows: which column holds what, and everything that can be wrong with a cell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from kdmesh.errors import MeshError
from kdmesh.streams.texts import LEARNED, Sample, Turn
from kdmesh.tables.rows import Rows, shown
from kdmesh.tables.unread_rows import AT_ONCE, UnreadRows

ASKS = ("user", "tool")
"""Roles whose turns may stand last where a conversation is a prompt: an answer follows them."""


@dataclass(frozen=True)
class Columns:
    """The columns that make a sample; None: there is none."""

    text: str | None
    pair: str | None = None
    prompt: str | None = None
    messages: str | None = None
    spans: str | None = None
    tools: str | None = None
    query: str | None = None
    rejected: str | None = None

    def names(self) -> list[str]:
        """The columns that there must be."""
        found = (self.text, self.pair, self.prompt, self.messages, self.rejected, self.spans, self.tools, self.query)
        return [name for name in found if name is not None]


def samples_of(rows: Rows, columns: Columns) -> list[Sample]:
    """Return a sample for every row; a cell that makes none is a MeshError that names file, column and line.

    A conversation that cannot be read becomes a sample with a `fault`, unless no row has one that can. Where none of
    them ends with a turn of the assistant's they are prompts, and may have none.
    """
    made, first = _made(rows, columns)
    if columns.messages is not None and any(sample.messages and not sample.answered for sample in made):
        made, first = _asked(rows, columns.messages, made, first, not any(map(_ends_learned, made)))
    if first is not None and all(sample.fault for sample in made):
        raise first
    return made


class SamplesLater:
    """The same samples, of rows that are not in memory: each is made again whenever someone asks for it.

    All are looked at once, so that a cell that makes none is told here, as of rows in memory. No cell is kept: where
    samples are private, these go to the hosts of others.
    """

    def __init__(self, rows: Rows, columns: Columns) -> None:
        assert isinstance(rows.cells, UnreadRows)
        self.rejects = columns.rejected is not None
        self._rows, self._columns = replace(rows, cells=rows.cells.bare()), columns
        self._prompts: bool | None = None  # whether conversations may be prompts alone; None: all are answered
        found = [_look(_made(part, columns)) for part in _parts(rows)]
        if any(one.asked or one.silent for one in found):
            self._prompts = not any(one.learned for one in found)
        if not any(one.answered or (one.asked and self._prompts) for one in found):
            for part in _parts(rows):
                self._read(part, refuse=True)

    def __len__(self) -> int:
        return len(self._rows.cells)

    def read(self, at: Sequence[int]) -> list[Sample]:
        """The samples of rows."""
        cells = self._rows.cells
        assert isinstance(cells, UnreadRows)
        return self._read(replace(self._rows, lines=[self._rows.lines[row] for row in at], cells=cells.some(at)))

    def _read(self, rows: Rows, refuse: bool = False) -> list[Sample]:
        made, first = _made(rows, self._columns)
        if self._prompts is not None and self._columns.messages is not None:
            made, first = _asked(rows, self._columns.messages, made, first, self._prompts)
        if refuse and first is not None:
            raise first
        return made


class _Look(NamedTuple):
    """What one part of the rows has: samples that are ``answered``, such as have no answer and ``asked`` as prompts do,
    or are ``silent``; and some whose last turn is ``learned``.
    """

    answered: bool
    asked: bool
    silent: bool
    learned: bool


def _look(part: tuple[list[Sample], MeshError | None]) -> _Look:
    whole = [one for one in part[0] if not one.fault]
    bare = [one for one in whole if one.messages and not one.answered]
    asks = [bool(one.messages) and (one.messages or ())[-1][0] in ASKS for one in bare]
    return _Look(len(whole) > len(bare), any(asks), not all(asks), any(map(_ends_learned, whole)))


def _parts(rows: Rows) -> Iterator[Rows]:
    """Rows in memory, some at a time."""
    for start in range(0, len(rows.cells), AT_ONCE):
        yield replace(rows, lines=rows.lines[start : start + AT_ONCE], cells=rows.cells[start : start + AT_ONCE])


def _ends_learned(one: Sample) -> bool:
    return bool(one.messages) and (one.messages or ())[-1][0] == LEARNED


def _made(rows: Rows, columns: Columns) -> tuple[list[Sample], MeshError | None]:
    """A sample for each row, and why the first conversation cannot be read that cannot."""
    made = []
    name = getattr(rows.path, "name", rows.path)
    first: MeshError | None = None
    for row, cells in enumerate(rows.cells):
        told = columns.text or columns.query
        text = "" if told is None else _text(rows, row, told)
        pair = None if columns.pair is None else _text(rows, row, columns.pair)
        chat = columns.messages is not None
        prompt = None
        if columns.prompt is not None and not chat:
            prompt = _text(rows, row, columns.prompt, empty=columns.text is not None)
        spans = None if columns.spans is None else _spans(rows, row, columns.spans, cells[columns.spans], text)
        messages, tools, fault = None, None, ""
        rejected: str | Turn | None = None
        if columns.rejected is not None and not chat:
            rejected = _text(rows, row, columns.rejected)
        try:
            if columns.messages is not None:
                messages, rejected = _chat(rows, row, columns)
            tools = None if columns.tools is None else _tools(rows, row, columns.tools)
        except MeshError as error:
            first, fault, messages = first or error, error.what, ()
        at = f"{name}, {rows.line(row)}"
        made.append(Sample(text, pair, prompt, messages, spans, at, tools, fault, rejected=rejected))
    return made, first


def _asked(
    rows: Rows, column: str, made: list[Sample], first: MeshError | None, prompts: bool
) -> tuple[list[Sample], MeshError | None]:
    """Conversations without a turn of the assistant's: as they are where all are ``prompts``, else with a `fault`."""
    for row, one in enumerate(made):
        if not one.messages or one.answered or (prompts and one.messages[-1][0] in ASKS):
            continue
        try:
            refuse_cell(rows, row, column, f"no turn of role {LEARNED!r}", "at least one: its words are learned")
        except MeshError as error:
            first, made[row] = first or error, replace(one, messages=(), fault=error.what)
    return made, first


def _text(rows: Rows, row: int, column: str, empty: bool = False) -> str:
    return text_of(rows, row, column, rows.cells[row][column], empty)


def text_of(rows: Rows, row: int, column: str, value: Any, empty: bool = False) -> str:
    """A text in a cell, perhaps one of several; MeshError where it is none, or an empty one that may not be."""
    value = "" if value is None else value
    if not isinstance(value, str):
        refuse_cell(rows, row, column, f"{shown(value)} is not a text", "text in every row")
    if not empty and not value.strip():
        refuse_cell(rows, row, column, "an empty text", "text in every row, or a file without this row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"character {error.start} is half of a surrogate pair"
        refuse_cell(rows, row, column, found, "well-formed Unicode")
    return value


def _messages(rows: Rows, row: int, column: str) -> tuple[Turn, ...]:
    """A conversation's turns, with all that they hold: what of it is written is for a chat template to say."""
    turns: list[Turn] = []
    for turn in list_of(rows, row, column, "[{role: user, content: ...}, {role: assistant, content: ...}]"):
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            refuse_cell(rows, row, column, f"{shown(turn)} is not a turn", "an object with `role` and `content`")
        more = {key: value for key, value in turn.items() if key not in ("role", "content") and value is not None}
        content = _joined(turn.get("content"))
        if content is None and not more:
            refuse_cell(rows, row, column, f"{shown(turn)} is not a turn", "an object with `role` and `content`")
        more |= {"content": None} if content is None else {}
        for call in _calls(rows, row, column, more):
            if not isinstance(call, dict) or not isinstance(_function(call).get("name"), str):
                instead = "tool_calls: [{function: {name: ..., arguments: {...}}}]"
                refuse_cell(rows, row, column, f"{shown(call)} is not a tool call", instead)
        words = text_of(rows, row, column, content, empty=turn["role"] != LEARNED or bool(more))
        turns.append((turn["role"], words, json.dumps(more)) if more else (turn["role"], words))
    if not turns:
        refuse_cell(rows, row, column, f"no turn of role {LEARNED!r}", "at least one: its words are learned")
    return tuple(turns)


def _chat(rows: Rows, row: int, columns: Columns) -> tuple[tuple[Turn, ...], Turn | None]:
    """A conversation's turns, those of the prompt first; and the turn that is rejected in place of the last one."""
    assert columns.messages is not None
    before = () if columns.prompt is None else _messages(rows, row, columns.prompt)
    turns = (*before, *_messages(rows, row, columns.messages))
    if columns.rejected is None:
        return turns, None
    other = _messages(rows, row, columns.rejected)
    for column, told in ((columns.messages, turns), (columns.rejected, other)):
        if told[-1][0] != LEARNED:
            refuse_cell(rows, row, column, f"its last turn is of role {told[-1][0]!r}", f"a last turn of {LEARNED!r}")
    alike = len(other) == 1 or (*before, *other[:-1]) == turns[:-1] or other[:-1] == turns[:-1]
    if not alike:
        what = f"the turns before its last one are not those of {columns.messages!r}"
        refuse_cell(rows, row, columns.rejected, what, "two answers to the same turns, or the last turn alone")
    return turns, other[-1]


def _joined(content: Any) -> Any:
    """The text of a content that is a list of parts, where all of them are texts; other contents as they are."""
    if isinstance(content, list) and content:
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else content
    return content


def _calls(rows: Rows, row: int, column: str, more: dict[str, Any]) -> list[Any]:
    calls = more.get("tool_calls") or []
    if not isinstance(calls, list):
        refuse_cell(rows, row, column, f"{shown(calls)} is not a list", "tool_calls: [{function: {name: ...}}]")
    return calls


def _function(call: dict[str, Any]) -> dict[str, Any]:
    """Who is called, in either of the forms that there are."""
    found = call.get("function", call)
    return found if isinstance(found, dict) else {}


def _tools(rows: Rows, row: int, column: str) -> str | None:
    """What the assistant may call, as JSON; None for an empty cell."""
    if rows.cells[row][column] in (None, "", []):
        return None
    tools = list_of(rows, row, column, "[{type: function, function: {name: ..., parameters: {...}}}]")
    for tool in tools:
        if not isinstance(tool, dict):
            refuse_cell(rows, row, column, f"{shown(tool)} is not a tool", "a JSON schema for each: an object")
    return json.dumps(tools) if tools else None


def _spans(rows: Rows, row: int, column: str, value: Any, text: str) -> tuple[tuple[int, int, str], ...]:
    instead = "[{start: 0, end: 4, label: NAME}]: characters of the text, end exclusive"
    found = []
    for span in list_of(rows, row, column, instead):
        parts = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else span
        match parts:
            case [int(start), int(end), str(label)] if 0 <= start < end <= len(text) and label:
                found.append((start, end, label))
            case _:
                what = f"{shown(span)} is no span of a text of {len(text)} characters"
                refuse_cell(rows, row, column, what, instead)
    found.sort()
    for one, two in pairwise(found):
        if two[0] < one[1]:
            refuse_cell(rows, row, column, f"spans {one} and {two} overlap", "a character in at most one span")
    return tuple(found)


def list_of(rows: Rows, row: int, column: str, instead: str) -> list[Any]:
    """A cell's list: as it is, from JSON text, or from a table's object of lists."""
    value = rows.cells[row][column]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            refuse_cell(rows, row, column, f"no JSON ({error})", instead)
    if isinstance(value, dict) and value and all(isinstance(part, list) for part in value.values()):
        value = [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=False)]
    if not isinstance(value, list):
        refuse_cell(rows, row, column, f"{shown(value)} is not a list", instead)
    return value


def refuse_cell(rows: Rows, row: int, column: str, what: str, instead: str) -> Any:
    """Raise the MeshError of a cell."""
    raise MeshError(f"{rows.at(row, column)}: {what}", where=rows.where, instead=instead)
