"""Texts that agents wrote in an earlier run: a file of its folder, `streams/<name>.jsonl`, or from the store."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kdmesh.errors import MeshError
from kdmesh.store import Store, default_root
from kdmesh.store.history import History, Retention
from kdmesh.store.signals import TEXTS
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.tables.lines import read_jsonl
from kdmesh.tables.rows import Rows, has_columns, labels_of, number_of

JUDGED = ("reward", "numbers")
"""What verifiers said: `reward` stays as a column, where texts have one."""
NEEDED = ("prompt", "text", "kept", "tokens", "sample", "draw", "producer", "step")
KEPT = ("sample", "draw", "producer", "step", "updates", "dropped")
"""What stays as columns."""
RAW = (
    *("prompt", "text", "kept", "sampling", "filters", "dropped", "weights_sha256"),
    *("producer", "served", "consensus", "rule"),
)
AGREED = ("answer", "share", "rule")
"""Columns of what a rule chose: on which answer most agreed, the share of texts that give it, and which rule."""


WHERE = "data.dataset.written"
ENTRY = "the history of a stream with `consensus_of`, as `kdmesh store ls` lists it"


def written(
    path: str | None = None,
    test_path: str | None = None,
    dropped: bool = False,
    label: str | None = None,
    entry: str | None = None,
    round: int | None = None,
    store: str | None = None,
) -> Table:
    """Return the texts as prompts with answers, without those of no token, and those that filters dropped.

    ``label``: the column with their classes; they are then classified, and no prompts.

    ``dropped``: also these. ``test_path``: a file of the official test split, another stream's or one of `jsonl`, whose
    lines need `prompt` and `text` alone. Columns say which sample and draw of the earlier run each answers, and who
    wrote it at which step after how many updates; of what a rule chose of several also its `answer`, the `share` of
    texts that agree, and the `rule`. Where a rule made pairs the other text is the sample's rejected one. ``entry``,
    ``round``, ``store``: in place of ``path`` what a rule chose, from the store; see :class:`WrittenConfig`.
    """
    where = f"{WHERE}.path"
    if path is None:
        where = f"{WHERE}.entry"
        rows, path = _kept(str(entry), round, str(store or default_root() or ""))
    else:
        rows = read_jsonl(Path(path), where, (*RAW, *JUDGED))
    if lacking := [name for name in NEEDED if name not in rows.columns]:
        raise MeshError(
            f"{path}: its lines have no {lacking[0]!r}",
            where=where,
            instead="a file streams/NAME.jsonl of a run's folder",
        )
    taken = [number for number, one in enumerate(rows.cells) if int(one["tokens"]) and (dropped or one["kept"] is True)]
    if not taken:
        what = f"{path}: none of its {len(rows.cells)} texts is kept and has a token"
        raise MeshError(what, where=where, instead="another stream, or dropped: true")
    silent = sum(one["kept"] is True and not int(one["tokens"]) for one in rows.cells)
    rows = replace(rows, cells=[rows.cells[number] for number in taken], lines=[rows.lines[number] for number in taken])
    parts = [rows]
    columns = {name: [str(one.get(name, "")) for one in rows.cells] for name in KEPT}
    if any(one.get("consensus") for one in rows.cells):
        told = [_agreed(one.get("consensus")) for one in rows.cells]
        columns |= {name: [one[name] for one in told] for name in AGREED}
    official = {}
    notes = [f"{path}: {silent} texts that were kept have no token, and are left out"] if silent else []
    if test_path is not None:
        parts.append(read_jsonl(Path(test_path), "data.dataset.written.test_path", RAW))
        has_columns(parts[1], "prompt", "text")
        ends = len(rows.cells), len(rows.cells) + len(parts[1].cells)
        official = {"train": torch.arange(ends[0]), "test": torch.arange(*ends)}
        columns = {name: [*values, *[""] * len(parts[1].cells)] for name, values in columns.items()}
    elif label is None and max(Counter(one["prompt"] for one in rows.cells).values()) > 1:
        notes += ["several texts answer one prompt, and splits that are drawn may divide them: give a test_path"]
    samples = [_sample(part, number) for part in parts for number in range(len(part.cells))]
    y, classes, names = None, 0, list[str]()
    if label is not None:
        for part in parts:
            has_columns(part, label)
        y, classes, names = labels_of(parts, label, None)
        samples = [replace(one, prompt=None, rejected=None) for one in samples]
    if any("reward" in one for one in rows.cells):
        worth = ["" if one.get("reward") is None else str(one["reward"]) for one in rows.cells]
        columns["reward"] = worth + [""] * (len(samples) - len(worth))
    return Table(Texts(samples), y, classes, official=official, columns=columns, labels=names, source=path, notes=notes)


def settle(config: dict[str, Any], store: str) -> dict[str, Any]:
    """Settings with the entry's whole name, the round after which it is read, and where the store is.

    ``store``: the run's, "" for none. MeshError for an entry that is not there, or is no history of texts.
    """
    if config.get("entry") is None:
        return config
    place = str(config.get("store") or store)
    digest, round, _, _ = _history(str(config["entry"]), config.get("round"), place)
    return {**config, "entry": digest, "round": round, "store": place}


def _history(entry: str, round: int | None, place: str) -> tuple[str, int, History, dict[str, Any]]:
    """An entry's whole name, the round asked for, and its history with who made it. MeshError where it is none."""
    if not place:
        what = "the store is switched off"
        raise MeshError(what, where=WHERE, instead="--store DIR, or `store: DIR` beside `entry`")
    opened = Store.open(place)
    try:
        info = opened.find(entry)
    except MeshError as error:
        error.where = f"{WHERE}.entry"
        raise
    key = info.key
    if key is None or "history" not in key.producer or key.signal.get("space") != TEXTS:
        why = "has no texts that a rule chose" if key is not None else f"cannot be read: {info.fault}"
        what = f"entry {info.digest[:12]} {why}"
        raise MeshError(what, file=place, where=f"{WHERE}.entry", instead=ENTRY)
    history = History(opened.entry(key, info.info), Retention.of(key.signal["retention"]))
    there = history.rounds()
    if not there:
        what = "; ".join([f"entry {info.digest[:12]} has no round that can be read", *opened.notes])
        raise MeshError(what, file=place, where=f"{WHERE}.entry", instead="the run that made it, once more")
    if round is not None and round not in there:
        what = f"entry {info.digest[:12]} has no round {round}"
        raise MeshError(what, file=place, where=f"{WHERE}.round", instead=f"one of {', '.join(map(str, there))}")
    return info.digest, there[-1] if round is None else round, history, dict(key.producer)


def _kept(entry: str, round: int | None, place: str) -> tuple[Rows, str]:
    """What a history has of each prompt, as lines of a file would have it, and whose it is."""
    digest, after, history, producer = _history(entry, round, place)
    cells = sorted(map(json.loads, history.texts(after)), key=lambda one: int(one["sample"]))
    run = producer["run"]
    told = f"{producer['history']} of {run['mesh']}, seed {run['seed']}, run {run['sha256'][:12]}"
    source = f"entry {digest[:12]} of the store ({told}), after round {after}"
    numbers = [int(one["sample"]) for one in cells]
    return Rows(source, f"{WHERE}.entry", list(cells[0]), numbers, cells, number_of, "sample"), source


def _agreed(told: object) -> dict[str, str]:
    """What a line says of a vote, as columns; "" for what it does not."""
    about = told if isinstance(told, dict) else {}
    answer, votes, texts = about.get("answer"), about.get("votes"), about.get("texts")
    own = votes.get(answer, 0) if isinstance(votes, dict) else None
    share = f"{own / texts:.3f}" if isinstance(own, int) and isinstance(texts, int) and texts > 0 else ""
    return {"answer": str(answer or ""), "share": share, "rule": str(about.get("rule", ""))}


def _sample(rows: Rows, number: int) -> Sample:
    cells = rows.cells[number]
    for name in ("prompt", "text"):
        if not isinstance(cells.get(name), str):
            what = f"{rows.at(number, name)}: it is no text"
            raise MeshError(what, where=rows.where, instead="text in every row")
    told = cells.get("consensus")
    rejected = told.get("rejected") if isinstance(told, dict) and cells.get("kept") is True else None
    return Sample(
        cells["text"],
        prompt=cells["prompt"],
        at=f"{getattr(rows.path, 'name', 'the store')}, {rows.line(number)}",
        rejected=str(rejected["text"]) if isinstance(rejected, dict) else None,
    )
