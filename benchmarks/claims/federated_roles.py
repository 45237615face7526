"""Roles of plays as parties: each has what one role says, and they learn one small language model of characters.

Six roles with most to say are the parties, a last fifth of whose speeches is the test, of all six together. What others
say is public: of it the characters are known. Every party begins with the same weights and learns ``rounds * local``
epochs of its own texts.

- ``alone``: nothing but that; the mean of the six. ``pooled``: one model on the texts of all, which no party could run.
- ``FedAvg``: the mean of their weights each round, each by how many texts it has (McMahan et al., 2017).
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from kdmesh import Mesh
from kdmesh.api import Result

PARTIES, ROUNDS, LOCAL = 6, 5, 2
LONGEST = 200  # characters of a sample: longer speeches are cut between words
OTHERS = 1000  # speeches of other roles that are public
MODEL = {
    "hf": {
        "tokenizer": {"characters": {}},
        "config": {"model_type": "gpt2", "n_embd": 48, "n_layer": 1, "n_head": 4, "n_positions": 256},
    }
}


def prepare(source: Path, out: Path) -> list[str]:
    """Write ``train.jsonl`` and ``test.jsonl`` into a folder; returns the roles that are parties."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        speeches = [json.loads(line) for line in file]
    said: Counter[str] = Counter()
    for speech in speeches:
        said[speech["role"]] += len(speech["text"])
    roles = [role for role, _ in said.most_common(PARTIES)]
    train, test = [], []
    for role in roles:
        own = [speech["text"] for speech in speeches if speech["role"] == role]
        cut = len(own) * 4 // 5
        train += [{"role": role, "text": part} for text in own[:cut] for part in _parts(text)]
        test += [{"role": role, "text": part} for text in own[cut:] for part in _parts(text)]
    others = [speech for speech in speeches if speech["role"] not in roles][:OTHERS]
    train += [{"role": speech["role"], "text": part} for speech in others for part in _parts(speech["text"])]
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        lines = [json.dumps(row) for row in rows]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return roles


def _parts(text: str) -> list[str]:
    """A speech in pieces of at most ``LONGEST`` characters."""
    found = [""]
    for word in text.split():
        if len(found[-1]) + len(word) >= LONGEST:
            found.append("")
        found[-1] = f"{found[-1]} {word}".strip()
    return [part for part in found if len(part) > 1]


def figures(seed: int, folder: Path, roles: list[str]) -> dict[str, float]:
    """Return bits a character on the test: of parties on average, or of the server or the pooled model."""
    alone = _mesh(seed, folder, roles, program=[
        {"of": [name], "lesson": "own", "epochs": ROUNDS * LOCAL} for name in _names()
    ])  # fmt: skip
    names = _names()
    rounds = [{"lesson": "own", "epochs": LOCAL}, {"publish": names}, {"publish": "server"}]
    averaged = _mesh(seed, folder, roles, program=[{"of": [*names, "server"], "repeat": ROUNDS, "do": rounds}])
    averaged.agent("server", MODEL, init_of=names[0], update="merged")
    averaged.flow(names, "server", weight="samples", stream="own", **{"as": "weights", "refresh": "round"})
    averaged.flow("server", names, **{"as": "weights", "refresh": "round"})
    single = _alone(alone)
    found = {"alone": fmean(single), "best alone": min(single), "FedAvg": _bits(_run(averaged), "server")}
    return found | {"pooled": _bits(_pooled(seed, folder, roles), "one")}


def _names() -> list[str]:
    return [f"party[{number}]" for number in range(PARTIES)]


def _fields(seed: int, folder: Path) -> dict[str, Any]:
    """The fields of every mesh."""
    data = {"text": {"path": str(folder / "train.jsonl"), "test_path": str(folder / "test.jsonl"), "text": "text"}}
    train = {"batch_size": 8, "optimizer": {"adamw": {"lr": 3e-3}}}
    return {
        "task": "language_modelling", "seed": seed, "data": {"dataset": data, "validation": 0.02, "seed": 0},
        "text": {"max_length": 256}, "train": train,
    }  # fmt: skip


def _mesh(seed: int, folder: Path, roles: list[str], **fields: Any) -> Mesh:
    """The parties, each with the texts of one role, all with the same initial weights."""
    shards = {"by": "column", "column": "role", "of": _names()}
    own = {"of": "train", "where": {"role": roles}, "shards": shards, "private": True}
    mesh = Mesh(name="roles", streams={"own": own}, **_fields(seed, folder), **fields)
    for name in _names():
        mesh.agent(name, MODEL, **({} if name == "party[0]" else {"init_of": "party[0]"}))
    mesh.flow("labels", _names(), stream="own", objective="ce", lesson="own")
    return mesh


def _pooled(seed: int, folder: Path, roles: list[str]) -> Result:
    fields = _fields(seed, folder)
    fields["train"]["epochs"] = ROUNDS * LOCAL
    mesh = Mesh(name="pooled", streams={"all": {"of": "train", "where": {"role": roles}}}, **fields)
    mesh.agent("one", MODEL)
    mesh.flow("labels", "one", stream="all", objective="ce")
    return _run(mesh)


def _run(mesh: Mesh) -> Result:
    return mesh.run(backend="inline")


def _alone(mesh: Mesh) -> list[float]:
    result = _run(mesh)
    return [_bits(result, name) for name in _names()]


def _bits(result: Result, name: str) -> float:
    return float(result[name].metrics["test"]["bits_per_character"])
