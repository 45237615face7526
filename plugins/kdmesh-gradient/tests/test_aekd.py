"""AEKD against an exhaustive search, and in a mesh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kdmesh import Mesh, MeshError
from kdmesh.testing import ConsensusContract

from kdmesh_gradient.aekd import AEKD, onto_capped_simplex
from kdmesh_gradient.plugin import CONSENSUS


def gradients(seed: int, sources: int = 3) -> torch.Tensor:
    return torch.randn(sources, 5, 4, generator=torch.Generator().manual_seed(seed))


def grid(cap: float, step: float = 0.005) -> np.ndarray:
    """Every pair of coefficients of a fine grid, with the third that sums to 1."""
    ticks = np.arange(0, 1 + step / 2, step)
    a, b = np.meshgrid(ticks, ticks)
    points = np.stack([a.ravel(), b.ravel(), 1 - a.ravel() - b.ravel()], 1)
    return points[(points >= -1e-9).all(1) & (points <= cap + 1e-9).all(1)]


@pytest.mark.parametrize("cap", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_no_point_of_a_fine_grid_has_a_shorter_gradient(cap, seed):
    given = gradients(seed)
    weights = AEKD(cap=cap).weights(torch.zeros(3, 5, 4), gradients=given)
    found = weights[:, 0].double().numpy()
    assert (weights == weights[:, :1]).all()
    assert found.min() >= 0 and found.max() <= cap + 1e-6 and found.sum() == pytest.approx(1, abs=1e-6)
    batch_mean = given.double().numpy().sum(1)
    best = np.linalg.norm(grid(cap) @ batch_mean, axis=1).min()
    assert np.linalg.norm(found @ batch_mean) <= best + 1e-6


def test_opposed_teachers_cancel_and_an_absent_one_has_no_say():
    one = gradients(0, sources=1)
    weights = AEKD(cap=1.0).weights(torch.zeros(2, 5, 4), gradients=torch.cat([one, -3 * one]))
    assert weights[:, 0].tolist() == pytest.approx([0.75, 0.25], abs=1e-5)
    present = torch.tensor([[True] * 5, [False] * 5])
    weights = AEKD().weights(torch.zeros(2, 5, 4), present=present, gradients=torch.cat([one, one * torch.nan]))
    assert weights.tolist() == [[1.0] * 5, [0.0] * 5]


def test_the_projection_keeps_points_of_the_capped_simplex_and_finds_the_nearest():
    inside = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert torch.allclose(onto_capped_simplex(inside, 0.6), inside, atol=1e-12)
    outside = torch.tensor([2.0, 0.1, -1.0], dtype=torch.float64)
    near = onto_capped_simplex(outside, 0.6)
    points = torch.from_numpy(grid(0.6))
    assert (near - outside).norm() <= (points - outside).norm(dim=1).min() + 1e-9


class TestAEKD(ConsensusContract):
    module = "kdmesh_gradient.plugin"
    order_invariant = True

    @pytest.fixture
    def offer(self):
        return CONSENSUS[0]


def four(consensus):
    """A student of three teachers; 300 digits."""
    mesh = Mesh(
        data={"dataset": "digits", "test": 400, "train": 300},
        train={"epochs": 4, "batch_size": 16, "optimizer": {"adamw": {"lr": 1e-2}}},
    )
    for name in ("a", "b", "c", "s"):
        mesh.agent(name, {"mlp": {"hidden": [16]}})
    mesh.connect("ensemble", teachers=["a", "b", "c"], student="s", consensus=consensus)
    return mesh


def test_a_student_learns_from_teachers_combined_in_gradient_space():
    one, plain = (four(rule).run(backend="inline") for rule in ({"aekd": {"cap": 0.5}}, "mean"))
    assert one["s"].metrics["test"]["accuracy"] > 0.5  # of ten digits, after 72 steps
    assert one["s"].weights_sha256 != plain["s"].weights_sha256
    assert one["a"].weights_sha256 == plain["a"].weights_sha256
    (consensus,) = one.summary["consensus"].values()
    assert consensus["metrics"]["test"] == {}  # no single signal: it differs with every gradient


def test_settings_are_checked_where_they_stand():
    with pytest.raises(MeshError, match=r"cap"):
        four({"aekd": {"cap": 2}}).plan()
