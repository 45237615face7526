"""The examples run as they stand, only shorter; and the attacker of the benchmarks lies as it says."""

from __future__ import annotations

from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]


def script(path):
    """Import a script that is in no package."""
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_modules_are_taught_by_modules_that_stay_as_they_were(capsys):
    example = script(ROOT / "examples" / "own_modules.py")
    result = example.main(epochs=4)
    assert [result[f"t{i}"].role for i in range(3)] == ["teacher"] * 3
    assert all(result.summary["agents"][f"t{i}"]["updates"] == 0 for i in range(3))
    student = result["student"]
    assert isinstance(student.module, example.Small) and not student.module.training
    assert student.metrics["test"]["accuracy"] > 0.5  # chance is 0.1
    assert f"{student.metrics['test']['accuracy']:.1%} of the test set" in capsys.readouterr().out


def test_a_plain_loop_with_the_median_withstands_the_liar(capsys):
    found = script(ROOT / "examples" / "own_loop.py").main(epochs=8)
    assert set(found) == {"Mean", "Median"}
    assert found["Median"] > found["Mean"] + 0.02
    assert "student of the Median" in capsys.readouterr().out


def test_a_plain_loop_has_targets_from_the_store(tmp_path, capsys):
    example = script(ROOT / "examples" / "targets" / "plain_loop.py")
    first = example.main(epochs=6, store=str(tmp_path))
    assert first > 0.7 and "student of three teachers" in capsys.readouterr().out  # chance is 0.1
    assert example.main(epochs=6, store=str(tmp_path), workers=1) == first


def test_a_trainer_of_transformers_has_targets_from_the_store(tmp_path, capsys):
    pytest.importorskip("accelerate", reason="Trainer needs accelerate: pip install kdmesh[trainer]")
    assert script(ROOT / "examples" / "targets" / "with_trainer.py").main(12, str(tmp_path), 300) > 0.6  # chance: 0.34
    assert "student of" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")  # of the libraries that lightning brings
def test_lightning_has_targets_from_the_store(tmp_path):
    pytest.importorskip("lightning", reason="pip install kdmesh[lightning]")
    assert script(ROOT / "examples" / "targets" / "with_lightning.py").main(6, str(tmp_path)) > 0.7


@pytest.fixture
def attackers():
    return script(ROOT / "benchmarks" / "attackers.py")


def test_the_attacker_says_the_least_likely_class_at_any_usual_temperature(attackers):
    torch.manual_seed(0)
    honest, x = nn.Linear(6, 4), torch.randn(32, 6)
    said = attackers.LeastLikely(honest)(x)
    assert torch.equal(said.argmax(1), honest(x).argmin(1))
    assert (said / 10).softmax(1).max(1).values.min() > 0.999


def test_a_committee_speaks_the_mean_probability(attackers):
    torch.manual_seed(0)
    members, x = [nn.Linear(6, 4) for _ in range(3)], torch.randn(8, 6)
    mean = torch.stack([member(x).softmax(-1) for member in members]).mean(0)
    torch.testing.assert_close(attackers.Committee(members)(x).exp(), mean)


def test_the_claims_can_be_read_and_judged(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # as `python benchmarks/digits_claims.py` has it
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    claims = import_module("digits_claims")
    assert all(claim.thresholds and claim.seeds >= 10 for claim in claims.CLAIMS)
    line = claims.Threshold("a", "b", least=10).line({"a": [50.0, 52.0], "b": [40.0, 44.0]})
    assert line.startswith("  MISS  a minus b: +9.0") and "larger in 2/2" in line
    assert claims.Threshold("a", most=51).line({"a": [50.0, 52.0]}).startswith("  pass")
