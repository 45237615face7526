"""The objectives against the papers' formulas, written anew in numpy, in double precision."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from kdmesh_relational.minilm import MiniLM
from kdmesh_relational.rkd import RKD
from kdmesh_relational.sp import SP

OBJECTIVES = {
    "sp": (SP(), (6,), (4,)),
    "rkd": (RKD(), (6,), (4,)),
    "rkd as code": (RKD(faithful="code"), (2, 3), (2, 2)),
    "minilm": (MiniLM(heads=2), (3, 6), (3, 4)),
}
each = pytest.mark.parametrize(("objective", "shape", "other"), OBJECTIVES.values(), ids=OBJECTIVES)


def hidden(seed, *shape, batch=5):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def huber(x, y):
    d = abs(x - y)
    return 0.5 * d * d if d <= 1 else d - 0.5


def test_sp_compares_row_normalised_gram_matrices():
    s, t = hidden(0, 2, 3), hidden(1, 4)
    grams = []
    for h in (s.numpy().reshape(5, -1), t.numpy()):
        gram = h @ h.T
        grams.append(gram / np.sqrt((gram**2).sum(1, keepdims=True)))
    assert SP()(s, t).item() == pytest.approx(((grams[1] - grams[0]) ** 2).sum() / 25, rel=1e-12)


def rkd(s, t):
    """Sums over distinct pairs and triplets, as in the paper: psi_D over its mean, psi_A the cosine at the middle."""
    distances, angles, size = [], [], len(s)
    for h in (s, t):
        pairs = {pair: np.linalg.norm(h[pair[0]] - h[pair[1]]) for pair in permutations(range(size), 2)}
        mean = np.mean(list(pairs.values()))
        distances.append({pair: value / mean for pair, value in pairs.items()})
        cosines = {}
        for i, j, k in permutations(range(size), 3):
            a, b = h[i] - h[j], h[k] - h[j]
            cosines[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        angles.append(cosines)
    return tuple(sum(huber(one[key], two[key]) for key in one) for one, two in (distances, angles))


@pytest.mark.parametrize(("faithful", "pairs", "triplets"), [("paper", 5 * 4, 5 * 4 * 3), ("code", 25, 125)])
def test_rkd_compares_distances_and_angles(faithful, pairs, triplets):
    s, t = hidden(0, 6), hidden(1, 4)
    distance, angle = rkd(s.numpy(), t.numpy())
    objective = RKD(distance=25.0, angle=50.0, faithful=faithful)
    assert objective(s, t).item() == pytest.approx(25 * distance / pairs + 50 * angle / triplets, rel=1e-12)


def test_rkd_does_not_see_scale_or_place():
    s, t = hidden(0, 6), hidden(1, 4)
    torch.testing.assert_close(RKD()(3 * s + 1, t), RKD()(s, t))


def test_rkd_of_samples_that_are_all_equal_has_a_finite_gradient():
    s = torch.ones(5, 6, requires_grad=True)
    RKD()(s, hidden(1, 4).float()).backward()
    assert s.grad.isfinite().all()


def test_minilm_compares_relations_within_each_head():
    s, t = hidden(0, 3, 6), hidden(1, 3, 4)
    relations = []
    for h in (s.numpy(), t.numpy()):
        width = h.shape[-1] // 2
        heads = [h[..., a * width : (a + 1) * width] for a in range(2)]
        scores = np.stack([x @ x.transpose(0, 2, 1) / np.sqrt(width) for x in heads], 1)
        relations.append(np.exp(scores) / np.exp(scores).sum(-1, keepdims=True))
    q, p = relations
    wanted = (p * np.log(p / q)).sum() / (5 * 2 * 3)  # samples, heads, tokens
    assert MiniLM(heads=2)(s, t).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("student", "target", "problem"),
    [((3, 6), (4, 6), "one length"), ((6,), (6,), "one length"), ((3, 6), (3, 5), "target's width 5 does not split")],
)
def test_minilm_refuses_shapes_at_setup(student, target, problem):
    with pytest.raises(ValueError, match=problem):
        MiniLM(heads=2).setup(torch.Size(student), torch.Size(target))


@each
def test_weights_scale(objective, shape, other):
    s, t = hidden(0, *shape), hidden(1, *other)
    torch.testing.assert_close(objective(s, t, weights=torch.full((5,), 0.5)), 0.5 * objective(s, t))


def test_silent_samples_are_no_partners():
    s, t = hidden(0, 6), hidden(1, 4)
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    heard = weights != 0
    torch.testing.assert_close(SP()(s, t, weights=weights), SP()(s[heard], t[heard]) * 16 / 25)
    near = RKD(angle=0.0, faithful="code")
    torch.testing.assert_close(near(s, t, weights=weights), near(s[heard], t[heard]) * 16 / 25)


@each
def test_one_sample_alone_and_half_precision(objective, shape, other):
    s, t = hidden(0, *shape, batch=1).bfloat16().requires_grad_(), hidden(1, *other, batch=1).bfloat16()
    loss = objective(s, t)
    loss.backward()
    assert loss.dtype is torch.float32
    assert loss.isfinite() and s.grad.isfinite().all()


@each
def test_other_forms_and_batches_of_unequal_size_are_refused(objective, shape, other):
    s, t = hidden(0, *shape), hidden(1, *other)
    with pytest.raises(ValueError, match="reads hidden, not logits"):
        objective(s, t, form="logits")
    with pytest.raises(ValueError, match="5 samples of the student, 4 of the target"):
        objective(s, t[:4])
