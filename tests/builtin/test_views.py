from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.builtin.views._random import bits, integers, normal
from kdmesh.builtin.views.offers import VIEWS
from kdmesh.errors import MeshError
from kdmesh.streams.views import View

X = torch.rand(40, 2, 6, 5, generator=torch.Generator().manual_seed(0)) + 0.1
IDS = torch.randperm(1000, generator=torch.Generator().manual_seed(1))[:40]
STRONG = {"noise": {"std": 0.5}, "shift": {"pixels": 2}, "flip": {}, "drop": {"p": 0.3}}
OFFERS = {offer.name: offer for offer in VIEWS}


def build(name: str, seed: int = 3, **config):
    return OFFERS[name].make(config or STRONG[name], seed=seed)


def test_offers_import_no_torch():
    code = "import sys, kdmesh.builtin.views.offers, kdmesh.builtin.models.offers, kdmesh.builtin.datasets.offers\n"
    code += "import kdmesh.streams.seeds\nassert not {'torch', 'ray', 'sklearn', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", STRONG)
@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.integers(0, 39), min_size=1, max_size=39, unique=True), draw=st.integers(0, 5))
def test_a_sample_does_not_depend_on_its_batch(name, rows, draw):
    view = build(name)
    whole = view(X, IDS, draw)
    assert torch.equal(view(X[rows], IDS[rows], draw), whole[rows])
    assert whole.shape == X.shape
    assert whole.dtype == X.dtype


@pytest.mark.parametrize("name", STRONG)
def test_seed_sample_and_draw_each_matter(name):
    base = build(name)(X, IDS, 0)
    assert torch.equal(base, build(name)(X, IDS, 0))
    assert not torch.equal(base, X)
    for other in (build(name, seed=4)(X, IDS, 0), build(name)(X, IDS + 1, 0), build(name)(X, IDS, 1)):
        assert not torch.equal(base, other)


@pytest.mark.parametrize("name", STRONG)
def test_the_input_and_torchs_generator_stay_as_they_are(name):
    before, state = X.clone(), torch.get_rng_state()
    build(name)(X, IDS, 0)
    assert torch.equal(X, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_standard_normal_and_independent():
    n = normal(torch.Size((50,)), torch.arange(4000), 0, "n").double()
    assert n.mean().abs() < 0.01
    assert (n.std() - 1).abs() < 0.01
    assert (n.pow(4).mean() - 3).abs() < 0.1
    assert torch.corrcoef(n.T).fill_diagonal_(0).abs().max() < 0.08  # between positions
    assert torch.corrcoef(n[:50]).fill_diagonal_(0).abs().mean() < 0.2  # between samples


def test_bits_are_balanced_and_integers_uniform():
    drawn = bits(8, torch.arange(5000), 1)
    ones = torch.stack([(drawn >> bit & 1).float().mean() for bit in range(24)])
    assert drawn.min() >= 0
    assert drawn.max() < 1 << 24
    assert (ones - 0.5).abs().max() < 0.02
    counts = torch.bincount(integers(5, 2, torch.arange(5000), 1).flatten(), minlength=5)
    assert counts.tolist() == pytest.approx([2000] * 5, rel=0.1)


def test_shift_moves_whole_images_and_fills_with_zeros():
    x = torch.zeros(200, 1, 5, 5)
    x[:, 0, 2, 2] = 1
    moved = build("shift", pixels=1)(x, torch.arange(200), 0)
    assert moved.sum((1, 2, 3)).tolist() == [1] * 200
    places = {tuple(place) for place in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    edge = build("shift", pixels=1)(torch.ones(50, 2, 3, 3), torch.arange(50), 0)
    assert set(edge.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(build("shift", pixels=0)(X, IDS, 0), X)


def test_flip_mirrors_some_samples_along_one_axis():
    for horizontal, axis in ((True, -1), (False, -2)):
        flipped = build("flip", horizontal=horizontal)(X, IDS, 0)
        same = (flipped == X).flatten(1).all(1)
        assert 8 < same.sum() < 32
        assert torch.equal(flipped[~same], X[~same].flip(axis))
    assert torch.equal(build("flip", p=1.0)(X, IDS, 0), X.flip(-1))
    assert torch.equal(build("flip", p=0.0)(X, IDS, 0), X)


def test_drop_silences_a_share_and_keeps_the_mean():
    x = torch.ones(200, 64)
    dropped = build("drop", p=0.25)(x, torch.arange(200), 0)
    assert sorted(set(dropped.flatten().tolist())) == [0.0, pytest.approx(4 / 3)]
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", ["shift", "flip"])
def test_vectors_have_no_pixels_to_move(name):
    with pytest.raises(MeshError, match="moves pixels"):
        build(name)(torch.ones(3, 8), torch.arange(3), 0)


def test_a_view_repeats_after_its_draws():
    view = View([build("shift"), build("noise")], draws=2)
    values = [view(X, IDS, epoch) for epoch in range(4)]
    assert torch.equal(values[0], values[2])
    assert torch.equal(values[1], values[3])
    assert not torch.equal(values[0], values[1])
    fresh = View([build("noise")], draws=None)
    assert not torch.equal(fresh(X, IDS, 0), fresh(X, IDS, 2))
    assert View([], draws=None)(X, IDS, 0) is X
