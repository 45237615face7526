"""Small meshes over texts that the tests write themselves: a file, models from configurations, tokenizers made here."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = {
    "animal": ["cat", "dog", "horse", "mouse", "bird", "fish"],
    "colour": ["red", "green", "blue", "black", "white", "brown"],
    "number": ["one", "two", "three", "four", "five", "six"],
}
FILL = ["the", "a", "some", "this", "that", "my", "your", "very", "old", "new"]


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Sentences of filling words around one word that gives the class away, with the span of that word."""
    draw, found = random.Random(seed), []
    for number in range(count):
        label = sorted(WORDS)[number % 3]
        words = [draw.choice(FILL) for _ in range(draw.randint(2, 7))]
        at = draw.randrange(len(words))
        words[at] = draw.choice(WORDS[label])
        start = len(" ".join(words[:at])) + bool(at)
        text = " ".join(words)
        spans = [{"start": start, "end": start + len(words[at]), "label": label.upper()}]
        found.append({"text": text, "label": label, "spans": spans, "domain": label})
    return found


def write(folder: Path, count: int = 90) -> Path:
    """A JSONL file of such rows."""
    path = folder / "texts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows(count)), encoding="utf-8")
    return path


def bert(width: int = 16, layers: int = 1, vocabulary: int | None = 300, **more: Any) -> dict[str, Any]:
    """An encoder with a tokenizer of its own; no dropout, so that a forward may be repeated."""
    config = {
        "model_type": "bert",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 64,
    }
    return {"hf": {"config": config, "tokenizer": tokenizer(vocabulary), "max_length": 48, **more}}


def gpt(width: int = 16, layers: int = 1, vocabulary: int | None = 300, **more: Any) -> dict[str, Any]:
    """A causal model with a tokenizer of its own."""
    config = {"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": 2, "n_positions": 64}
    return {"hf": {"config": config, "tokenizer": tokenizer(vocabulary), "max_length": 48, **more}}


def llama(width: int = 16, layers: int = 1, vocabulary: int | None = 300, **more: Any) -> dict[str, Any]:
    """Another causal model, without dropout."""
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 64,
    }
    return {"hf": {"config": config, "tokenizer": tokenizer(vocabulary), "max_length": 48, **more}}


def tokenizer(vocabulary: int | None) -> dict[str, Any]:
    """Byte pairs, or single characters."""
    return {"bpe": {"vocabulary": vocabulary}} if vocabulary else {"characters": {}}


def classified(path: Path, **more: Any) -> dict[str, Any]:
    """Two teachers with unlike tokenizers and a student that hears their consensus."""
    return {
        "data": {"dataset": {"text": {"path": str(path), "label": "label"}}, "transfer": 0.2},
        "agents": {"t1": {"model": bert(24)}, "t2": {"model": bert(16, 2, None)}, "s": {"model": bert(8)}},
        "connect": [{"ensemble": {"teachers": ["t1", "t2"], "student": "s", "labels": 0.5}}],
        "train": {"epochs": 2, "batch_size": 8, "optimizer": {"adamw": {"lr": 3e-3}}},
        "placement": "together",
        **more,
    }


def labelled(folder: Path, task: str, **more: Any) -> dict[str, Any]:
    """Two teachers and a student of texts with two labels each, that hold or not, or that are values."""
    several = task == "multi_label"
    names = ["animal", "colour"] if several else ["words", "characters"]
    lines = []
    for row in rows(90):
        facts: list[Any] = [row["label"] == name for name in names]
        if not several:
            facts = [len(row["text"].split()), len(row["text"]) / 10]
        lines.append({"text": row["text"], "domain": row["label"], **dict(zip(names, facts, strict=True))})
    path = folder / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    objective: Any = {"binary_kl": {"temperature": 2}} if several else "mse"
    return {
        **classified(path),
        "task": task,
        "data": {"dataset": {"text": {"path": str(path), "indicators" if several else "values": names}}},
        "connect": [{"ensemble": {"teachers": ["t1", "t2"], "student": "s", "objective": objective, "labels": 0.5}}],
        **more,
    }


def modelled(path: Path, **more: Any) -> dict[str, Any]:
    """Two causal teachers with one tokenizer and a student that hears their mixture."""
    kl = {"kl": {"temperature": 2}}
    return {
        "task": "language_modelling",
        "data": {"dataset": {"text": {"path": str(path), "text": "text"}}},
        "agents": {"t1": {"model": gpt(24)}, "t2": {"model": llama(16)}, "s": {"model": gpt(8)}},
        "connect": [{"ensemble": {"teachers": ["t1", "t2"], "student": "s", "objective": kl, "labels": 0.5}}],
        "train": {"epochs": 2, "batch_size": 8, "optimizer": {"adamw": {"lr": 3e-3}}},
        "placement": "together",
        **more,
    }


def distilled(path: Path, signal: Any, objective: Any, refresh: str = "step", **more: Any) -> dict[str, Any]:
    """A frozen causal teacher, and a student that hears it by a signal."""
    flow = {"from": "t", "to": "s", "objective": objective, "signal": signal, "refresh": refresh}
    agents = {"t": {"model": gpt(24), "update": "frozen"}, "s": {"model": gpt(8)}}
    train = {"steps": 3, "batch_size": 8, "optimizer": {"adamw": {"lr": 3e-3}}}
    mesh = {**modelled(path), "agents": agents, "flows": [flow], "train": train, **more}
    del mesh["connect"]
    return mesh
