"""Small meshes with an agent behind an endpoint of the tests."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "text"))

from text_meshes import WORDS, bert, llama, write


def tops(prompt: str) -> dict[str, float]:
    """First tokens with their log-probabilities: most on the class whose word stands in the text, some on others."""
    text = prompt.partition("\n")[0].split()
    shares = {label: 0.8 if any(word in text for word in words) else 0.1 for label, words in WORDS.items()}
    found = {f" {label.capitalize()}": math.log(share / sum(shares.values()) * 0.9) for label, share in shares.items()}
    return found | {f"x{number}": math.log(0.001) for number in range(20)}


def classified(folder: Path, url: str, count: int = 45, **api: Any) -> dict[str, Any]:
    """A labeller and a student that it alone teaches."""
    path = write(folder, count)
    return {
        "name": "m",
        "task": "classification",
        "data": {"dataset": {"text": {"path": str(path), "label": "label"}}, "validation": 6, "test": 9},
        "agents": {
            "gpt": {"model": {"api": {"base_url": url, "model": "tiny", **api}}, "update": "frozen"},
            "student": {"model": bert()},
        },
        "flows": [{"from": "gpt", "to": "student", "objective": {"kl": {"temperature": 1}}}],
        "text": {"max_length": 48},
        "train": {"epochs": 2, "batch_size": 8},
    }


def written(url: str, sampling: dict[str, Any] | None = None, api: dict[str, Any] | None = None, **stream: Any) -> Any:
    """An endpoint that writes answers to sums, and a student that learns them."""
    model = {"base_url": url, "model": "tiny", "tokenizer": {"characters": {}}, "max_length": 48, **(api or {})}
    given = {"generated_by": "gpt", "prompts": "train", "refresh": "once", **stream}
    return {
        "name": "m",
        "task": "language_modelling",
        "data": {"dataset": {"sums": {"below": 8}}, "train": 12, "validation": 4, "test": 4},
        "agents": {
            "gpt": {"model": {"api": model}, "update": "frozen"},
            "s": {"model": llama(8, vocabulary=None)},
        },
        "streams": {"w": {**given, "sampling": {"max_new_tokens": 4, **(sampling or {})}}},
        "flows": [{"from": "labels", "to": "s", "objective": "ce", "stream": "w"}],
        "train": {"epochs": 2, "batch_size": 4},
    }
