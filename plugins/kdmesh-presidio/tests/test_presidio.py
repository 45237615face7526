"""presidio behind kdmesh's recogniser: what processes are asked and answer; with presidio itself where it is there."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from kdmesh.errors import MeshError
from kdmesh.testing import RecogniserContract

from kdmesh_presidio import plugin, recogniser
from kdmesh_presidio.recogniser import PYTHON, Presidio

IN_PLACE = """#!{python}
import json, sys
print(json.dumps({ready}), flush=True)
for number, line in enumerate(sys.stdin):
    if number == {ends}:
        sys.exit(3)
    texts = json.loads(line)
    found = [[[at, at + 3, "EMAIL_ADDRESS"] for at in [one.find("a@b")] if at >= 0] for one in texts]
    print(json.dumps(found), flush=True)
"""
READY = '{"ready": "0"}'


def stands_in(folder: Path, monkeypatch: pytest.MonkeyPatch, ready: str = READY, ends: int = -1) -> None:
    """In the place of the Python with presidio, a script that finds `a@b`."""
    path = folder / "python"
    path.write_text(IN_PLACE.format(python=sys.executable, ready=ready, ends=ends), encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv(PYTHON, str(path))


@pytest.mark.parametrize("workers", [1, 3])
def test_every_text_has_its_own_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    stands_in(tmp_path, monkeypatch)
    texts = [f"{'é' * (number % 7)}a@b {number}" if number % 3 else f"none \n {number}" for number in range(500)]
    made = Presidio(workers=workers, language="en", kinds=None, score=0.35)
    found = made.find(texts)
    assert found == [[(number % 7, number % 7 + 3, "EMAIL")] if number % 3 else [] for number in range(500)]
    assert pickle.loads(pickle.dumps(made)).find(texts[:2]) == found[:2] and made.find([]) == []


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stands_in(tmp_path, monkeypatch)
    monkeypatch.setattr(recogniser, "AFTER", -1)
    monkeypatch.setattr(recogniser, "TELLS", -1)
    made, said = Presidio(language="en", score=0.35), []
    made.say = said.append
    made.find(["a@b"] * 100)
    assert said[0] == "presidio: 32 of 100 texts" and said[-1] == "presidio: 100 of 100 texts"


def test_a_python_without_presidio_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stands_in(tmp_path, monkeypatch, '{"error": "ModuleNotFoundError: No module named \'presidio_analyzer\'"}')
    with pytest.raises(MeshError, match="No module named 'presidio_analyzer'"):
        Presidio(language="en", score=0.35).find(["a"])
    monkeypatch.setenv(PYTHON, str(tmp_path / "none"))
    with pytest.raises(MeshError, match="cannot be begun"):
        Presidio(language="en", score=0.35).find(["a"])


def test_a_process_that_ends_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stands_in(tmp_path, monkeypatch, ends=1)
    with pytest.raises(RuntimeError, match="ended, with code 3"):
        Presidio(language="en", score=0.35).find(["a@b"] * 100)


def test_both_are_offered_and_reading_them_imports_nothing_heavy() -> None:
    model, patterns = plugin.kdmesh_recognisers()
    assert model.config.model_validate({}).model == "en_core_web_sm" and "PERSON" in model.finds
    assert "PERSON" not in patterns.finds
    code = "import sys, kdmesh_presidio.plugin; assert not {'spacy', 'torch', 'presidio_analyzer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestPatterns(RecogniserContract):
    """presidio itself."""

    texts: ClassVar[tuple[str, ...]] = ("ann@example.org", "4012888888881881")
    others: ClassVar[tuple[str, ...]] = ("nothing here", "ann at example")

    @pytest.fixture
    def offer(self):
        pytest.importorskip("presidio_analyzer")
        pytest.importorskip("spacy")
        return plugin.RECOGNISERS[1]
