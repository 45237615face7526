from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
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


@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_of_a_beta_distribution(alpha, per):
    view = OFFERS["mixup"].make({"alpha": alpha, "per": per}, seed=3)
    shares = []
    for draw in range(400 if per == "batch" else 10):
        share = view(X, IDS, draw).share
        shares += [share] if per == "batch" else share.tolist()
    shares = torch.tensor(shares, dtype=torch.float64)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)  # that of Beta(alpha, alpha)


def test_mixup_is_the_sum_by_shares_and_partners_are_a_permutation():
    for per in ("batch", "sample"):
        x, partner, share = OFFERS["mixup"].make({"per": per}, seed=3)(X, IDS, 5)
        own = share if per == "batch" else share[:, None, None, None]
        assert torch.equal(x, X * own + X[partner] * (1 - own))
        assert partner.sort().values.equal(torch.arange(len(X)))


def test_cutmix_puts_one_box_of_the_partner_and_its_share_is_the_area():
    for per in ("batch", "sample"):
        boxes = set()
        for draw in range(20):
            x, partner, share = OFFERS["cutmix"].make({"per": per}, seed=3)(X, IDS, draw)
            theirs = (x != X).any(1)  # [B, H, W]
            shares = torch.as_tensor(share).expand(len(X))
            for row in range(len(X)):
                if partner[row] == row:
                    continue
                found = theirs[row].nonzero()
                assert len(found) == round((1 - shares[row].item()) * 30)  # of 6 x 5 pixels
                if len(found):
                    (top, left), (bottom, right) = found.min(0).values.tolist(), found.max(0).values.tolist()
                    assert len(found) == (bottom - top + 1) * (right - left + 1)
                    assert torch.equal(x[row], torch.where(theirs[row], X[partner[row]], X[row]))
                    boxes.add((top, left, bottom, right))
        assert len(boxes) > 10


def test_a_batch_that_is_not_mixed_is_as_it_was():
    for name in ("mixup", "cutmix"):
        x, _, share = OFFERS[name].make({"p": 0.0}, seed=3)(X, IDS, 0)
        assert torch.equal(x, X) and share == 1
        shares = [OFFERS[name].make({"p": 0.5}, seed=3)(X, IDS, draw).share for draw in range(60)]
        assert 15 < shares.count(1.0) < 45


def test_two_cross_entropies_are_that_to_the_mixed_distribution():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 7, dtype=torch.float64, generator=generator)
    y = torch.randint(7, (40,), generator=generator)
    for per in ("batch", "sample"):
        _, partner, share = OFFERS["mixup"].make({"per": per}, seed=3)(X, IDS, 2)
        own = torch.as_tensor(share, dtype=torch.float64).expand(40)
        values, slopes = [], []
        for soft in (False, True):
            z = logits.clone().requires_grad_()
            if soft:
                mixed = own[:, None] * F.one_hot(y, 7) + (1 - own[:, None]) * F.one_hot(y[partner], 7)
                loss = F.cross_entropy(z, mixed)
            else:
                both = [F.cross_entropy(z, target, reduction="none") for target in (y, y[partner])]
                loss = (own * both[0] + (1 - own) * both[1]).mean()
            values.append(loss.item())
            slopes.append(torch.autograd.grad(loss, z)[0])
        assert values[0] == pytest.approx(values[1], rel=1e-13)
        assert (slopes[0] - slopes[1]).abs().max() < 1e-15
