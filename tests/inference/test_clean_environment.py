"""One file and one command; then raw files are asked of a copied agent's folder where nothing else of the run is left.

The environment is one of its own: kdmesh from its wheel, the libraries, and no plugin; an empty home and working
folder; no variable of ours. The run's folder, its file and its data for training are gone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kdmesh.cli import main

pytestmark = pytest.mark.slow
REPO = Path(__file__).parents[2]
OURS = ("kdmesh", "_kdmesh", "__editable__", "_editable")
MLP = {"model": {"mlp": {"hidden": [16]}}}
Case = Callable[[Path], tuple[dict[str, Any], Path, list[str] | None]]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment with kdmesh's wheel and what it needs, and no plugin of ours."""
    root = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    found = root / "venv" / "bin" / "python"
    asked = [found, "-c", "import site; print(site.getsitepackages()[0])"]
    site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    for folder in filter(lambda one: one.endswith("site-packages"), sys.path):
        for one in Path(folder).iterdir():
            if not one.name.startswith(OURS) and one.suffix != ".pth" and not (site / one.name).exists():
                (site / one.name).symlink_to(one)
    build = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--target", site, REPO], check=True, capture_output=True)
    return found


def idx(root: Path) -> tuple[dict[str, Any], Path, list[str] | None]:
    """Fashion-MNIST's form: pixels and labels in IDX files; what is asked is the file of test pixels."""
    drawn = np.random.default_rng(0)
    shapes = drawn.integers(0, 255, (10, 28, 28))
    for name, count in (("train", 200), ("t10k", 60)):
        labels = drawn.integers(0, 10, count)
        pixels = np.clip(shapes[labels] + drawn.normal(0, 60, (count, 28, 28)), 0, 255).astype(np.uint8)
        head = struct.pack(">IIII", 0x803, count, 28, 28)
        (root / f"{name}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        (root / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.astype(np.uint8).tobytes()
        )
        truth = [str(label) for label in labels]
    return {"dataset": {"idx": {"folder": str(root)}}}, root / "t10k-images-idx3-ubyte", truth


def jpegs(root: Path) -> tuple[dict[str, Any], Path, list[str] | None]:
    """Photographs in folders of classes, in a .zip."""
    from PIL import Image

    drawn = np.random.default_rng(1)
    for name, count in (("train", 60), ("test", 24)):
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for number in range(count):
                kind = ("ant", "bee", "fly")[number % 3]
                pixels = np.full((20 + number % 5, 24, 3), 60 * (number % 3 + 1)) + drawn.normal(0, 20, (1, 1, 3))
                file = io.BytesIO()
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG")
                archive.writestr(f"photos/{kind}/{number:03}.jpg", file.getvalue())
    settings = {"path": str(root / "train.zip"), "test_path": str(root / "test.zip"), "resize": 16, "mode": "rgb"}
    return {"dataset": {"images": settings}}, root / "test.zip", None


def census(root: Path) -> tuple[dict[str, Any], Path, list[str] | None]:
    """A table with categories and gaps, some of which train lacks."""
    drawn = random.Random(2)
    for name, count in (("train", 240), ("test", 80)):
        with (root / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["age", "work", "hours", "income"])
            for number in range(count):
                age, hours = drawn.randint(18, 80), drawn.randint(10, 60)
                work = drawn.choice(["state", "private", "none"]) if number or name == "train" else "farm"
                cells = [age if drawn.random() > 0.1 else "", work, hours if drawn.random() > 0.1 else ""]
                out.writerow([*cells, "high" if age + hours > 85 else "low"])
    prepare: list[dict[str, Any]] = [
        {"columns": "numbers", "impute": "median", "indicator": True, "scale": "standard"},
        {"columns": "categories", "encode": "one_hot", "unseen": "ignore"},
    ]
    table = {"path": str(root / "train.csv"), "test_path": str(root / "test.csv"), "label": "income"}
    return {"dataset": {"csv": table}, "prepare": prepare}, root / "test.csv", None


def intents(root: Path) -> tuple[dict[str, Any], Path, list[str] | None]:
    """Short texts, half of them without a label."""
    drawn = random.Random(3)
    words = {"play": ["play", "song", "music"], "book": ["book", "table", "room"], "stop": ["stop", "quiet", "end"]}
    for name, count in (("train", 120), ("test", 40)):
        with (root / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["said", "intent"])
            for number in range(count):
                intent = drawn.choice(sorted(words))
                text = f"please {drawn.choice(words[intent])} the {drawn.choice(words[intent])} number {number}"
                out.writerow([text, "" if name == "train" and number % 2 else intent])
    table = {"path": str(root / "train.csv"), "test_path": str(root / "test.csv"), "text": "said", "label": "intent"}
    return {"dataset": {"text": table}}, root / "test.csv", None


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TEXTS = {"tokenizer": {"bpe": {"vocabulary": 300}}, "max_length": 32}
BERT = {"model": {"hf": {"config": {"model_type": "bert", "max_position_embeddings": 32, **SIZES}, **TEXTS}}}


@pytest.mark.parametrize("case", [idx, jpegs, census, intents])
def test_raw_files_have_the_figures_of_the_run(case: Case, python: Path, tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    section, asked, truth = case(data)
    agent = BERT if case is intents else MLP
    ensemble: dict[str, Any] = {"teachers": ["teacher"], "students": ["student"], "labels": 0.5}
    connect = [{"ensemble": ensemble}]
    if case is intents:  # and from what the teacher says of the texts without a label
        connect.append({"ensemble": {**ensemble, "labels": 0.0, "stream": "transfer"}})
    mesh = {
        "data": section,
        "agents": {"teacher": agent, "student": agent},
        "connect": connect,
        "train": {"steps": 12, "batch_size": 16},
    }
    (tmp_path / "mesh.yaml").write_text(yaml.safe_dump(mesh), encoding="utf-8")
    assert main(["run", str(tmp_path / "mesh.yaml"), "--out", str(tmp_path / "runs"), "--quiet"]) == 0
    (run,) = (tmp_path / "runs").glob("*/*")
    figures = json.loads((run / "summary.json").read_text())["agents"]["student"]["metrics"]["test"]
    (away := tmp_path / "away").mkdir()
    shutil.copytree(run / "agents" / "student", away / "student")
    shutil.copy(asked, away)
    for gone in (tmp_path / "runs", data):
        shutil.rmtree(gone)
    (tmp_path / "mesh.yaml").unlink()
    (home := tmp_path / "home").mkdir()

    def kdmesh(*words: str) -> str:
        env = {"PATH": os.defpath, "HOME": str(home), "OMP_NUM_THREADS": "1"}
        command = [python, "-I", "-m", "kdmesh", *words]
        done = subprocess.run(command, cwd=away, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    answers = [row["label"] for row in csv.DictReader(io.StringIO(kdmesh("predict", "student", asked.name)))]
    if truth is None:
        said = json.loads(kdmesh("evaluate", "student", asked.name, "--json", "--quiet"))
        assert said["figures"] == figures
        assert len(figures) > 1
    else:
        assert sum(map(str.__eq__, answers, truth)) / len(truth) == pytest.approx(figures["accuracy"], abs=1e-12)
    assert len(answers) == (len(truth) if truth else {"jpegs": 24, "census": 80, "intents": 40}[case.__name__])
