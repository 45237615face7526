"""Canaries, made up and planted in a table: the same in every process that reads the data.

After personal data is taken out, and once it is known which samples are in no other split, they are put behind all
others, as samples of train. What looks for personal data looks at them, too. Whether one is in is the toss of a fair
coin, which the data seed decides, for each by itself (Steinke, Nasr and Jagielski, "Privacy Auditing with One (1)
Training Run", 2023); secrets in a template are those of Carlini et al., "The Secret Sharer", 2019.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.spec.canaries import NUMBER, SECRET
from kdmesh.streams.planted import CHANGED, DROPPED, KEPT, Canary, Planted
from kdmesh.streams.seeds import mix
from kdmesh.streams.splits import split
from kdmesh.streams.texts import Sample, Texts
from kdmesh.text.recognised import treatment

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.spec import DataSpec
    from kdmesh.spec.canaries import CanariesSpec
    from kdmesh.streams.table import Table

WHERE = "data.canaries"
PLANTED, OTHERS = "canaries", "candidates"


def with_canaries(table: Table, data: DataSpec) -> Table:
    """The table with the canaries that the mesh asks for. MeshError for data that none can stand among."""
    spec = data.canaries
    assert spec is not None
    _refuse(table, spec)
    coins = random.Random(mix(data.seed, PLANTED, "coins"))
    made = Making(table, data)
    looked = None if data.personal is None else treatment(data.personal, "data.personal")
    canaries: list[Canary] = []
    x: list[Sample | Tensor] = []
    y: list[int] = []
    for number in range(spec.count):
        one, label, secret = made.sample(number, random.Random(mix(data.seed, PLANTED, number)))
        inside, became, stands = coins.random() < 0.5, KEPT, one
        if inside and looked is not None and isinstance(one, Sample):
            stands, parts = looked.samples([one])[0]
            became = KEPT if not parts else CHANGED if looked.replacing is not None else DROPPED
        first = len(table) + len(x)
        copies = spec.times if inside and became != DROPPED else 0
        x += [stands] * copies
        y += [0 if label is None else label] * copies
        canaries.append(Canary(number, one, label, secret, inside, (*range(first, first + copies),), became))
    if len({one.inside for one in canaries}) < 2:
        what = f"the coins put all of {spec.count} canaries on one side"
        raise MeshError(what, where=WHERE, instead="more canaries, or another data.seed")
    planted = Planted(spec.kind, spec.times, tuple(canaries))
    return replace(_longer(table, x, y), planted=planted, notes=[*table.notes, planted.told()])


class Making:
    """Makes canaries up, and others that could have been planted as well: as many as an audit asks for."""

    def __init__(self, table: Table, data: DataSpec) -> None:
        assert data.canaries is not None
        self.spec, self._table = data.canaries, table
        rows = split(table, data)["train"]
        self._rows = rows if table.y is None or table.kind != "classes" else rows[table.y[rows] >= 0]

    def sample(self, number: int, drawn: random.Random) -> tuple[Sample | Tensor, int | None, str]:
        """One: what it is, its class, and its secret. ``number``: of the canary in whose place it could stand."""
        spec, table = self.spec, self._table
        if spec.kind == "secret":
            secret = "".join(drawn.choice(spec.alphabet) for _ in range(spec.size))
            label = drawn.randrange(table.classes) if table.y is not None else None
            return secret_text(spec, number, secret), label, secret
        assert table.y is not None
        row = int(self._rows[drawn.randrange(len(self._rows))])
        if spec.kind == "mislabelled":
            label = (int(table.y[row]) + drawn.randrange(1, table.classes)) % table.classes
            return (table.texts[row] if table.is_text else table.tensor[row]), label, ""
        x = table.tensor
        generator = torch.Generator().manual_seed(drawn.getrandbits(63))
        at = self._rows[torch.randint(len(self._rows), (x[0].numel(),), generator=generator)]
        mixed = x.flatten(1)[at, torch.arange(len(at))].reshape(x.shape[1:])
        return mixed, drawn.randrange(table.classes), ""

    def others(self, number: int, count: int, seed: int) -> list[tuple[Sample | Tensor, int | None, str]]:
        """So many that were not planted."""
        drawn = random.Random(mix(seed, OTHERS, number))
        return [self.sample(number, drawn) for _ in range(count)]


def secret_text(spec: CanariesSpec, number: int, secret: str) -> Sample:
    """The text with its secret."""
    assert spec.text is not None
    text = spec.text.replace(NUMBER, str(number)).replace(SECRET, secret)
    prompt = None if spec.prompt is None else spec.prompt.replace(NUMBER, str(number))
    return Sample(text, prompt=prompt, at=f"canary {number}")


def before_secret(spec: CanariesSpec, number: int) -> str:
    """What stands before the secret."""
    assert spec.text is not None
    return ((spec.prompt or "") + spec.text.split(SECRET)[0]).replace(NUMBER, str(number))


def _refuse(table: Table, spec: CanariesSpec) -> None:
    where = f"{WHERE}.kind"
    if table.unread:
        raise MeshError("samples are read when they are asked for", where=WHERE, instead="lazy: false, or no canaries")
    tokens = table.is_text and table.y is None and not table.tags
    classes = table.kind == "classes" and table.classes > 1 and not table.lists
    if spec.kind == "secret" and not table.is_text:
        raise MeshError("samples are numbers, and hold no secret", where=where, instead="random, or mislabelled")
    if spec.kind == "random" and table.is_text:
        raise MeshError("samples are texts, not numbers", where=where, instead="secret, or mislabelled")
    if not (classes or (tokens and spec.kind == "secret")):
        what = f"a {spec.kind} canary stands among samples with a class" + (
            ", or among texts that are modelled" if spec.kind == "secret" else ""
        )
        raise MeshError(what, where=WHERE, instead="data of classes, or no canaries")


def _longer(table: Table, x: list[Sample | Tensor], y: list[int]) -> Table:
    """The table with more samples behind its own."""
    if not x:
        return table
    if isinstance(table.x, Texts):
        samples: Texts | Tensor = Texts([*table.x, *(one for one in x if isinstance(one, Sample))])
    else:
        samples = torch.cat([table.tensor, torch.stack([one for one in x if not isinstance(one, Sample)])])
    labels = None if table.y is None else torch.cat([table.y, table.y.new_tensor(y)])
    columns = {name: [*values, *[""] * len(x)] for name, values in table.columns.items()}
    return replace(table, x=samples, y=labels, columns=columns)
