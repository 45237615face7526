"""Every bundled topology over encoders: the same file with texts for data and a small encoder for every model."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from accounted import accounts
from small_texts import bpe
from text_meshes import bert

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import bundled, parse, read_mesh

LONGEST, COUNTS = 1, ("epochs", "rounds", "digest_epochs", "steps")
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of ten classes, which the bundled meshes' digits have."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("numbers") / "numbers.jsonl"
    rows = [
        {
            "text": " ".join([draw.choice(["a", "the", "some"]), WORDS[n % 10], draw.choice(["of", "to", "in"])]),
            "y": n % 10,
        }
        for n in range(240)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def over_texts(value: Any, path: Path) -> Any:
    """The mesh with an encoder in place of every model, without what only images have, and short."""
    if isinstance(value, list):
        return [over_texts(item, path) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: over_texts(item, path) for key, item in value.items() if key != "view"}
    for key, item in found.items():
        if key in COUNTS and isinstance(item, int):
            found[key] = min(item, LONGEST)
        elif key == "dataset":
            found[key] = {"text": {"path": str(path), "label": "y"}}
        elif key == "model":
            found[key] = bert(8 if "mlp" in item else 16, 1 + ("cnn" in item))
        elif key == "tap":
            found[key] = {"of": "hidden.1", "to": "hidden.1"}
        elif key == "batch_size":
            found[key] = 16
        elif key == "size" and isinstance(item, int):
            found[key] = 64
    return found


TEXTS = (
    "augment",  # is over texts as it stands: test_text_augmented.py runs it
    "fedgkt",  # an encoder reads no features in the place of its texts
    "prototypes",  # its layers have a row for each token, and means are of samples
)
CLASSES = [name for name in sorted(bundled()) if read_mesh(name).task.name == "classification" and name not in TEXTS]


@pytest.mark.parametrize("name", CLASSES)
def test_a_bundled_topology_runs_over_encoders(name: str, numbers: Path, tmp_path: Path) -> None:
    few = read_mesh(name, ("agents.teacher.count=3",) if name == "pate" else ())
    mesh = over_texts(few.dump(), numbers)
    mesh.pop("placement", None)
    if any(stream.get("private") for stream in mesh.get("streams", {}).values()):  # no tokenizer is made of these
        bpe().save_pretrained(numbers.parent / "tokenizer")
        for agent in mesh["agents"].values():
            agent["model"]["hf"]["tokenizer"] = str(numbers.parent / "tokenizer")
    spec = parse(mesh)
    summary, _, _ = run_once(Request(spec, "inline", privacy=accounts(spec, tmp_path / "keys")))
    plan = make_plan(spec, registry())
    for agent, facts in summary["agents"].items():
        assert plan.withheld(agent) or facts["metrics"]["test"]["loss"] > 0, agent
