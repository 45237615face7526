"""Reading how test samples were answered, from whole files and from others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kdmesh.contracts.run_files import ANSWERS
from kdmesh.errors import MeshError
from kdmesh.report.answers import read

ABOUT = {"format": 1, "metric": "ndcg", "higher_is_better": True, "agents": ["a"], "consensus": []}
ROWS = np.arange(4)


def file(folder: Path, about: object = ABOUT, **arrays: np.ndarray) -> Path:
    given = {"ids": ROWS, "labels": ROWS, "a/score": np.ones(4, np.float32)}
    given |= {name.replace("__", "/"): values for name, values in arrays.items()}
    save_file(given, folder / ANSWERS, {"kdmesh": json.dumps(about)})
    return folder


def test_the_score_of_samples_that_do_not_count_is_nan(tmp_path):
    assert read(tmp_path) is None
    score = np.array([0.5, np.nan, 1, 0], np.float32)
    assert np.array_equal(read(file(tmp_path, a__score=score)).score("a"), score, equal_nan=True)
    assert read(file(tmp_path)).score("nobody") is None
    words = read(file(tmp_path, ids=np.array([0, 0, 1, 2])))
    assert words.score("a") is None and len(words.agents["a"].score) == 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"a__score": np.ones(3, np.float32)}, r"a/score is float32 \(3,\), of 4 rows"),
        ({"a__decision": np.ones(4, np.float32)}, r"a/decision is float32"),
        ({"labels": ROWS[:2]}, r"ids \(4,\) and labels \(2,\) do not fit"),
        ({"about": {**ABOUT, "format": 2}}, "format 2; this version reads format 1"),
        ({"about": {"format": 1}}, "agents"),
        ({"about": [1]}, "not those of answers"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, changed, said):
    with pytest.raises(MeshError, match=said):
        read(file(tmp_path, **changed))


def test_a_file_cut_short_is_refused(tmp_path):
    path = file(tmp_path) / ANSWERS
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(MeshError, match="cannot be read"):
        read(tmp_path)
