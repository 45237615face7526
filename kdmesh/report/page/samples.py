"""Test samples on which teachers differ, as pictures or texts, with what everyone answered.

A run's folder holds no samples. They are read again from the data set that the run names, where that needs no network,
and shown only where they are the run's own by their sums. Where any stream is private, nothing is read.
"""

from __future__ import annotations

import base64
import socket
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from kdmesh.errors import MeshError, printable
from kdmesh.report.page.blocks import Block, Sample, Samples, Text, Value
from kdmesh.report.page.known import Known, row

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.report.answers import Answers, Of
    from kdmesh.streams.table import Table

    Array = np.ndarray[Any, Any]

MOST = 24
LETTERS = 400  # of a text, beyond which it is cut
PIXELS = 128  # of a picture's side; of a larger one every second, third ... pixel is shown
LEAST_PIXELS = 4  # of a side: what is narrower is no picture
MOST_ANSWERS = 12  # by whom a sample's answers are shown


def shown(known: Known, found: Answers, order: Sequence[int], names: Sequence[str]) -> list[Block]:
    """The first samples of ``order``, rows of the answers, with the answers of ``names``; or why there are none."""
    import numpy as np

    if len(np.unique(found.ids)) < len(found.ids):
        return [Text(["Rows are parts of samples here: samples are not shown."])]
    try:
        table = _read(known)
    except MeshError as error:
        return [Text([f"The samples themselves are not shown: {error.what}."])]
    rows = [int(at) for at in order[:MOST]]
    ids = [int(found.ids[at]) for at in rows]
    if any(not 0 <= one < len(table) for one in ids):
        return [Text(["The samples themselves are not shown: the answers name samples that the data set has not."])]
    contents, note = _contents(table, ids)
    if not contents:
        return [Text([note])]
    made = []
    for at, one, (picture, text) in zip(rows, ids, contents, strict=True):
        answers = [
            (name, str(known.nodes.get(name, {}).get("role") or ""), *_answer(of, at, found, table.labels))
            for name in names[:MOST_ANSWERS]
            if (of := found.agents.get(name) or found.consensus.get(name)) is not None and of.decision is not None
        ]
        made.append(Sample(str(one), _named(int(found.labels[at]), table.labels), picture, text, answers))
    note = f"{len(made)} of {len(order)}, those with most different answers first. {note}"
    note += f" Of the data set {table.source}, read again for this page." if table.source else ""
    return [Samples("Samples where teachers differ", made, note.strip())]


def _read(known: Known) -> Table:
    """The run's data set. MeshError where it cannot be had here, or is another one."""
    plan = known.plan
    if isinstance(plan, MeshError):
        raise plan
    if any(stream.private for stream in plan.spec.streams.values()):
        raise MeshError("a stream of this run is private")
    data = plan.spec.data
    if data is None or data.dataset.name == "python:given":
        raise MeshError("they were given from Python")
    if data.dataset.is_import:
        raise MeshError("the data set is code of one's own, which is not run for a page")
    if row(data.dataset.config).get("hub"):
        raise MeshError("the data set is one of a hub, and a page is made without a network")
    from kdmesh.hosts.source import Source

    try:
        with _no_network():
            table, streams = Source().load(plan)
    except MeshError as error:
        raise MeshError(f"the data set cannot be read here: {error.what}") from None
    if any(stream.private for stream in streams.values()):
        raise MeshError("a stream of this run is private")
    written = row(known.run.manifest.get("data"))
    if {key: written.get(key) for key in table.fingerprint} != table.fingerprint:
        raise MeshError("the data set has other samples now than the run had, by their sha256")
    return table


@contextmanager
def _no_network() -> Iterator[None]:
    """Whoever asks for a connection in here is refused one: a data set of a plugin's, say, that would download."""

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError("a page is made without a network")

    with mock.patch.object(socket, "getaddrinfo", refused), mock.patch.object(socket, "create_connection", refused):
        yield


def _contents(table: Table, ids: list[int]) -> tuple[list[tuple[str | None, str | None]], str]:
    """Of each sample a picture, as an address with its data, or a text; none, and why."""
    if table.is_text:
        texts = [_text(table.texts[one]) for one in ids]
        return [(None, text) for text in texts], f"Texts are cut after {LETTERS} letters."
    shape = tuple(table.shape)
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < LEAST_PIXELS:
        return [], f"Its samples, of shape {list(shape)}, are neither pictures nor texts: they are not shown."
    values = table.numbers[ids].numpy()
    low, high = float(values.min()), float(values.max())
    note = ""
    if low < 0 or high > 1:
        note = f"Brightness is scaled: {low:.3g} is black, {high:.3g} white."
    else:
        low, high = 0.0, 1.0
    every = -(-max(shape[1:]) // PIXELS)
    if every > 1:
        note += f" One pixel in {every} of each side is shown."
    scaled = ((values[..., ::every, ::every] - low) / ((high - low) or 1.0) * 255).round().clip(0, 255).astype("uint8")
    return [(address(one), None) for one in scaled], note


def _text(sample: Any) -> str:
    """A sample's words in the order in which they are read, cut, with escapes in place of control characters."""
    parts = [sample.prompt, sample.text, sample.pair, *(f"{turn[0]}: {turn[1]}" for turn in sample.messages or ())]
    whole = "\n".join(part for part in parts if part)
    cut = whole[:LETTERS]
    return printable(cut) + (f" … (of {len(whole):,} letters)" if len(whole) > LETTERS else "")


def _answer(of: Of, at: int, found: Answers, labels: Sequence[str]) -> tuple[str, Value | None, bool]:
    """What one answered, how sure it was, and whether it is right."""
    decided = int(of.decision[at])  # type: ignore[index]  # whoever asks has looked
    sure = None if of.confidence is None else float(of.confidence[at])
    confidence = None if sure is None or sure != sure else Value(sure, f"{sure:.0%}")
    return _named(decided, labels), confidence, decided == int(found.labels[at])


def _named(number: int, labels: Sequence[str]) -> str:
    """A class by its number, and its name where that says more; below 0 nobody was answered."""
    if number < 0:
        return "no answer"
    name = labels[number] if 0 <= number < len(labels) else ""
    return f"{number} ({name[:40]})" if name and name != str(number) else str(number)


def address(picture: Array) -> str:
    """A picture ``[1 or 3, height, width]`` uint8 as an address that holds it, in PNG."""
    channels, height, width = picture.shape
    lines = picture.transpose(1, 2, 0).reshape(height, width * channels)
    raw = b"".join(b"\0" + line.tobytes() for line in lines)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    made = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return f"data:image/png;base64,{base64.b64encode(made).decode()}"
