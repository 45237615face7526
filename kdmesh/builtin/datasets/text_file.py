"""A plain text file, cut into samples of equal length for language modelling."""

from __future__ import annotations

from pathlib import Path

import torch

from kdmesh.errors import MeshError
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.tables.files import read_text

WHERE = "data.dataset.text_file"


def text_file(path: str, characters: int = 512, test: float = 0.1, licence: str | None = None) -> Table:
    """Return a UTF-8 file, plain or .gz, as samples of so many characters, none left out; the last may be shorter.

    The last part of the file, ``test`` of its samples, is the official test split: text that no training sample
    stands in the middle of.
    """
    whole = read_text(Path(path), f"{WHERE}.path")
    name = Path(path).name
    samples = []
    for start in range(0, len(whole), characters):
        piece = whole[start : start + characters]
        samples.append(Sample(piece, at=f"{name}, characters {start} to {start + len(piece)}"))
    held = round(test * len(samples))
    if test and not 0 < held < len(samples):
        raise MeshError(
            f"{path}: {held} of {len(samples)} samples of {characters} characters would be the test split",
            where=f"{WHERE}.test",
            instead="fewer `characters`, another share, or `test: 0` for no official test split",
        )
    train, last = torch.arange(len(samples)).split([len(samples) - held, held])
    return Table(
        Texts(samples),
        None,
        classes=0,
        official={"train": train, "test": last} if held else {},
        licence=licence or "not stated",
        source=path,
        reads={"characters": str(characters)},
    )
