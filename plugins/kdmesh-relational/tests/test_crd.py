"""CRD against the paper's formula and the published code's, written anew in numpy, in double precision."""

from __future__ import annotations

import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from kdmesh import MeshError

from kdmesh_relational.crd import CRD

IDS = torch.tensor([70, 12, 33, 5, 900, 41])  # in no order
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
SIX = torch.arange(6)


def hidden(seed, *shape, batch=6):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


S, T = hidden(0, 2, 3), hidden(1, 4)


def crd(seed=0, labels=CLASSES, **settings):
    torch.manual_seed(seed)
    made = CRD(**{"dim": 3, "temperature": 0.5, "faithful": "paper", **settings})
    made.setup(torch.Size([2, 3]), torch.Size([4]), labels=labels, ids=IDS)
    return made.double()


def loss(made, at=SIX, weights=None, student=S, target=T):
    return made(student[at], target[at], ids=IDS[at], labels=CLASSES[at], weights=weights)


class Reference:
    """CRD as the paper or the code states it, with the negatives given; it starts from an objective's state."""

    def __init__(self, made, faithful="paper", tau=0.5, momentum=0.5):
        state = {name: value.numpy().copy() for name, value in made.state_dict().items()}
        self.layers = [(state[f"embed_{side}.weight"], state[f"embed_{side}.bias"]) for side in ("student", "target")]
        rows = np.searchsorted(state["ids"], IDS.numpy())  # the memory is in the order of ids
        self.memory = [state[f"{side}_memory"][rows] for side in ("student", "target")]
        self.code, self.tau, self.momentum, self.z = faithful == "code", tau, momentum, [None, None]

    def __call__(self, at, negatives):
        """The loss of samples ``at`` with ``negatives[i]`` for sample i, and the update of both memories."""
        g = []
        for (weight, bias), h in zip(self.layers, (S, T), strict=True):
            x = h.numpy().reshape(6, -1)[at] @ weight.T + bias
            g.append(x / np.linalg.norm(x, axis=1, keepdims=True))
        k, m, total = len(negatives[at[0]]), 6, 0.0
        for side, (anchors, memory) in enumerate(((g[0], self.memory[1]), (g[1], self.memory[0]))):
            pairs = [memory[i] if self.code else g[1 - side][row] for row, i in enumerate(at)]
            e = np.array([
                [np.exp(a @ other / self.tau) for other in (pair, *memory[negatives[i]])]
                for a, pair, i in zip(anchors, pairs, at, strict=True)
            ])  # fmt: skip
            eps = 0.0
            if self.code:
                eps = 1e-7
                self.z[side] = self.z[side] or e.mean() * m
                e = e / self.z[side]
            log_h = np.log(e[:, 0] / (e[:, 0] + k / m + eps))
            log_rest = np.log((k / m) / (e[:, 1:] + k / m + eps))
            total -= (log_h + log_rest.sum(1)).mean()
        for memory, seen in zip(self.memory, g, strict=True):
            mixed = self.momentum * memory[at] + (1 - self.momentum) * seen
            memory[at] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        return total


def candidates(policy):
    same = CLASSES if policy == "other_class" else SIX
    return [np.flatnonzero((same != same[i]).numpy()) for i in range(6)]


@pytest.mark.parametrize("faithful", ["paper", "code"])
@pytest.mark.parametrize("policy", ["other_class", "other_sample"])
def test_crd_is_nce_against_a_memory_of_the_other_side(faithful, policy):
    made = crd(negatives=policy, faithful=faithful, momentum=0.3)
    wanted = Reference(made, faithful, momentum=0.3)
    others = candidates(policy)
    assert made.count == len(others[0])  # of 16384, all there are: nothing is left to chance
    for at in ([0, 3, 4], [5, 1], [2, 0, 4], [1, 2, 3, 5]):  # each call sees what the last left in memory
        assert loss(made, at).item() == pytest.approx(wanted(at, others), rel=1e-12)


def test_negatives_are_drawn_evenly_and_without_replacement():
    made = crd(negatives="other_sample", count=2, momentum=0.0)
    fixed = made.state_dict()
    values = {round(Reference(made)([0], {0: list(pair)}), 9): pair for pair in combinations(range(1, 6), 2)}
    assert len(values) == 10
    found = []
    for call in range(200):
        made.load_state_dict({**fixed, "calls": torch.tensor(call)})
        found.append(values[round(loss(made, [0]).item(), 9)])
    assert all(10 <= found.count(pair) <= 32 for pair in values.values())  # 20 expected


def test_a_negative_is_never_of_the_anchor_s_class():
    made = crd(count=1)
    for _ in range(20):
        rows = made._draw(made._rows(IDS))
        assert (made.classes[rows[:, 0]] != CLASSES).all()
        loss(made)


def test_draws_and_memory_go_on_after_a_round_trip_and_leave_torch_s_generator_alone():
    made = crd(count=2)
    for at in ([0, 3, 4], [5, 1, 2]):
        loss(made, at)
    again = crd(seed=8, count=2)
    again.load_state_dict(made.state_dict())
    state = torch.get_rng_state()
    for at in ([1, 2], SIX, [4, 0]):
        assert torch.equal(loss(made, at), loss(again, at))
    assert torch.equal(torch.get_rng_state(), state)
    assert loss(crd(seed=8, count=2)).item() != loss(crd(count=2)).item()


def test_only_training_with_gradients_moves_the_memory():
    made = crd(count=2, faithful="code")
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with torch.no_grad():
        first = loss(made)
    loss(made.eval())
    assert all(torch.equal(value, before[name]) or name == "log_z" for name, value in made.state_dict().items())
    assert made.log_z.isnan().all()
    assert torch.equal(loss(made.train()).detach(), first)
    moved = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"student_memory", "target_memory", "log_z", "calls"}


def test_a_loss_can_go_backward_after_the_memory_has_moved():
    made, student = crd(count=2), S.clone().requires_grad_()
    (loss(made, student=student) + loss(made, student=student)).backward()
    assert student.grad.isfinite().all() and student.grad.any()
    for layer in (made.embed_student, made.embed_target):
        assert layer.weight.grad.any()


def test_the_code_s_gradient_is_right_once_z_is_known():
    made = crd(faithful="code")
    loss(made)
    student = S.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(copy.deepcopy(made), student=x), (student,))


@pytest.mark.parametrize("faithful", ["paper", "code"])
def test_the_others_fare_as_if_silent_samples_were_not_there(faithful):
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.0, 0.5], dtype=torch.float64)
    heard = weights.nonzero()[:, 0]
    with_silence, without = crd(count=2, faithful=faithful), crd(count=2, faithful=faithful)
    for _ in range(2):
        one = loss(with_silence, weights=weights)
        torch.testing.assert_close(one, loss(without, heard, weights[heard]) * 4 / 6)
    for name, value in without.state_dict().items():
        assert torch.equal(with_silence.state_dict()[name], value), name
    entries = crd(count=2).student_memory
    unchanged = (with_silence.student_memory == entries).all(1)
    assert with_silence.ids[unchanged].tolist() == sorted(IDS[weights == 0].tolist())


@pytest.mark.parametrize("faithful", ["paper", "code"])
def test_a_batch_of_silence_is_no_loss(faithful):
    made, student = crd(faithful=faithful), S.clone().requires_grad_()
    nothing = loss(made, weights=torch.zeros(6), student=student)
    nothing.backward()
    assert nothing.item() == 0 and not student.grad.any()
    assert loss(made).isfinite()


def test_strangers_and_streams_without_negatives_are_refused():
    with pytest.raises(ValueError, match="no memory of sample 6: setup named 6 others"):
        crd()(S[:2], T[:2], ids=torch.tensor([70, 6]), labels=CLASSES[:2])
    with pytest.raises(ValueError, match="no memory of sample 901"):
        crd()(S[:1], T[:1], ids=torch.tensor([901]))
    with pytest.raises(MeshError, match="all samples of this stream are of one class"):
        crd(labels=torch.zeros(6, dtype=torch.int64))
    with pytest.raises(ValueError, match="needs the samples of its stream"):
        CRD().setup(torch.Size([3]), torch.Size([3]), ids=IDS, labels=None)
    assert crd(labels=torch.zeros(6, dtype=torch.int64), negatives="other_sample").count == 5


def test_a_sample_that_a_stream_repeats_has_one_entry():
    made = CRD(dim=2)
    made.setup(torch.Size([2]), torch.Size([2]), ids=torch.tensor([4, 2, 4]), labels=torch.tensor([1, 0, 1]))
    assert made.ids.tolist() == [2, 4] and made.classes.tolist() == [0, 1]
