"""`kdmesh.load` of damaged folders: it loads, or says as one kind of error which folder is damaged and by what."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from text_meshes import bert, gpt, modelled

import kdmesh
from kdmesh.errors import MeshError
from kdmesh.text.source import quiet

Damage = tuple[str, str, bytes | None]  # a folder, a file in it, and what that holds; None: it is gone


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> dict[str, Path]:
    pytest.importorskip("peft")
    home = tmp_path_factory.mktemp("whole")
    digits = kdmesh.Mesh(data={"dataset": "digits", "train": 32}, train={"steps": 1, "batch_size": 8})
    digits.agent("s", {"mlp": {"hidden": [8]}})
    digits.flow("labels", "s", objective="ce")
    label = kdmesh.Mesh(
        data={"dataset": {"text": {"path": str(texts), "label": "label"}}}, train={"steps": 1, "batch_size": 8}
    )
    label.agent("s", bert(8, prefix={"length": 2}))
    label.flow("labels", "s", objective="ce")
    made = modelled(texts, train={"steps": 1, "batch_size": 8})
    made["agents"] = {"s": {"model": gpt(8)}}
    made["connect"] = []
    made["flows"] = [{"from": "labels", "to": "s", "objective": "ce"}]
    meshes = {"numbers": digits, "prefix": label, "language": kdmesh.Mesh(**made)}
    found = {}
    for name, mesh in meshes.items():
        folder = mesh.run(backend="inline", out=home / name).folder
        assert folder is not None
        found[name] = folder / "agents" / "s"
    return found


def damages(agents: dict[str, Path]) -> Iterator[Damage]:
    """Every file gone, empty, cut, turned over, or of another kind; every entry of every JSON gone or another thing."""
    for name, root in agents.items():
        for path in sorted(file for file in root.rglob("*") if file.is_file() and file.suffix != ".md"):
            file, content = path.relative_to(root).as_posix(), path.read_bytes()
            half = len(content) // 2
            turned = content[:half] + bytes(255 - byte for byte in content[half : half + 16]) + content[half + 16 :]
            for damaged in (None, b"", content[:half], content[:-1], turned, b"null", b"[1]", b"\xff\xfe{}"):
                yield name, file, damaged
            told = json.loads(content) if path.suffix == ".json" else {}
            for key, value in told.items():
                yield name, file, json.dumps({k: v for k, v in told.items() if k != key}).encode()
                for other in (None, 5, "x", [], {}, [[1]], -1):
                    if other != value:
                        yield name, file, json.dumps({**told, key: other}).encode()


def load(agents: dict[str, Path], damage: Damage, home: Path) -> bool:
    """Whether a damaged copy is still read; MeshError is the one other way to end."""
    name, file, content = damage
    folder = home / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(agents[name], folder)
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    try:
        with quiet():
            kdmesh.load(folder)
    except MeshError as error:
        assert str(folder) in str(error), (damage, str(error))
        return False
    return True


MUST_FAIL = [
    ("numbers", "model.safetensors"),
    ("numbers", "config.json"),
    ("language", "model.safetensors"),
    ("language", "tokenizer.json"),
    ("language", "kdmesh.json"),
    ("language", "config.json"),
    ("prefix", "adapter/adapter_model.safetensors"),
    ("prefix", "adapter/adapter_config.json"),
]


def test_a_file_that_is_gone_or_cut_is_told(agents: dict[str, Path], tmp_path: Path) -> None:
    for name, file in MUST_FAIL:
        size = (agents[name] / file).stat().st_size
        for content in (None, b"", (agents[name] / file).read_bytes()[: size // 2]):
            assert not load(agents, (name, file, content), tmp_path), (name, file)
    for name in agents:
        kdmesh.load(agents[name])


def test_some_of_all_damages(agents: dict[str, Path], tmp_path: Path) -> None:
    every: list[Any] = list(damages(agents))
    for damage in random.Random(0).sample(every, 40):
        load(agents, damage, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_damages(agents: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = list(damages(agents))
    refused = sum(not load(agents, damage, tmp_path) for damage in every)
    with capsys.disabled():
        print(f"\n{len(every)} damaged folders: {refused} refused, {len(every) - refused} read, no other error")
