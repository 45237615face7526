"""Small data sets in every form that may be read later; a mesh on each: two agents on shards, who meet on a pool."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 64
TINY = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16}  # fmt: skip
MODELS = {
    "numbers": {"mlp": {"hidden": [6]}},
    "texts": {"hf": {"config": TINY, "tokenizer": {"characters": {}}}},
}
EVERY = ["a", "b"]
LATER = {"arrays": {"lazy": True}, "images": {"lazy": True, "workers": 1}, "texts": {"lazy": True},
         "tables": {"lazy": True}}  # fmt: skip
"""By form, what reads it later."""


def dataset(form: str, root: Path) -> dict[str, Any]:
    """The data set of a form, which is written below a folder."""
    drawn = np.random.default_rng(0)
    y = np.arange(COUNT) % 2
    x = drawn.integers(0, 120, (COUNT, 5, 4, 3), dtype=np.uint8) + (100 * y[:, None, None, None]).astype(np.uint8)
    match form:
        case "arrays":
            np.save(root / "x.npy", (x / 255).astype("f4"))
            np.save(root / "y.npy", y)
            return {"arrays": {"path": str(root)}}
        case "images":
            from PIL import Image

            with zipfile.ZipFile(root / "photos.zip", "w") as file:
                for number, pixels in enumerate(x):
                    Image.fromarray(pixels).save(made := BytesIO(), "PNG")
                    file.writestr(f"{'dark' if not y[number] else 'light'}/{number:03}.png", made.getvalue())
            return {"images": {"path": str(root / "photos.zip")}}
        case "texts":
            rows = [{"text": f"{'no' if one else 'yes'} {number * 7 % 13}", "label": "ab"[one]}
                    for number, one in enumerate(y)]  # fmt: skip
            (root / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
            return {"text": {"path": str(root / "texts.jsonl"), "label": "label"}}
        case "tables":
            lines = [f"{one.mean():.3f},{one.std():.3f},{label}" for one, label in zip(x, y, strict=True)]
            (root / "rows.csv").write_text("\n".join(["mean,std,label", *lines]), encoding="utf-8")
            return {"csv": {"path": str(root / "rows.csv")}}
    raise ValueError(form)


def mesh(form: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Two agents learn labels on shards, and of each other on samples that both have."""
    model = MODELS["texts" if form == "texts" else "numbers"]
    flows: list[dict[str, Any]] = [
        {"from": "labels", "to": EVERY, "objective": "ce", "stream": "own"},
        {"from": "a", "to": "b", "objective": "kl", "stream": "pool", "refresh": "epoch"},
        {"from": "b", "to": "a", "objective": "kl", "stream": "pool", "refresh": "epoch"},
    ]
    return {
        "name": "m",
        "data": {"dataset": data, "validation": 8, "test": 8},
        "agents": {name: {"model": model} for name in EVERY},
        "streams": {"pool": {"size": 16}, "own": {"rest_of": "pool", "shards": {"of": EVERY}}},
        "flows": flows,
        "train": {"epochs": 3, "batch_size": 4, "optimizer": {"adamw": {"lr": 0.01}}},
        **more,
    }


def later(form: str, data: dict[str, Any]) -> dict[str, Any]:
    """The same data set, read later."""
    return {name: {**settings, **LATER[form]} for name, settings in data.items()}
