"""Objectives between hidden layers: hints, attention transfer, and attention rows of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Size, nn
from torch.nn import functional as F

from kdmesh.objectives import AttentionKL, AttentionMSE, AttentionTransfer, Hint

SHAPES = {
    "vectors": ((6,), (4,), nn.Linear),
    "tokens": ((3, 6), (3, 4), nn.Linear),
    "maps": ((2, 4, 4), (3, 4, 4), nn.Conv2d),
    "larger student": ((2, 6, 4), (3, 3, 2), nn.Conv2d),
    "larger target": ((2, 3, 2), (3, 6, 4), nn.Conv2d),
    "taller and narrower": ((3, 6, 2), (3, 3, 4), nn.Conv2d),
}
each_shape = pytest.mark.parametrize(("student", "target", "adapter"), SHAPES.values(), ids=SHAPES)


def hidden(student, target, batch=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(batch, *shape, generator=generator, dtype=dtype) for shape in (student, target))


def made(student, target, **config):
    torch.manual_seed(0)
    hint = Hint(**config)
    hint.setup(Size(student), Size(target))
    return hint.double()


@each_shape
def test_hint_builds_a_trainable_adapter_where_shapes_differ(student, target, adapter):
    hint = made(student, target)
    assert type(hint.adapter) is adapter
    hint(*hidden(student, target)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in hint.parameters())


@each_shape
def test_hint_gradients(student, target, adapter):
    hint = made(student, target)
    s, t = hidden(student, target, batch=2)
    assert torch.autograd.gradcheck(hint, (s.requires_grad_(), t.requires_grad_()))


def test_hint_is_the_mean_over_elements_after_the_adapter():
    s, t = hidden((6,), (4,))
    hint = made((6,), (4,))
    regressed = s.numpy() @ hint.adapter.weight.detach().numpy().T + hint.adapter.bias.detach().numpy()
    assert hint(s, t).item() == pytest.approx(np.square(regressed - t.numpy()).mean())
    assert torch.equal(hint(s, t), F.mse_loss(hint.adapter(s), t))


def test_hint_pools_the_larger_map():
    s, t = hidden((3, 4, 4), (3, 2, 2))
    hint = made((3, 4, 4), (3, 2, 2))
    torch.testing.assert_close(hint(s, t), F.mse_loss(hint.adapter(F.avg_pool2d(s, 2)), t))
    torch.testing.assert_close(made((3, 2, 2), (3, 4, 4))(t, s), F.mse_loss(hint.adapter(t), F.avg_pool2d(s, 2)))


def test_hint_needs_no_adapter_between_equal_shapes_unless_always():
    s, t = hidden((5,), (5,))
    hint = made((5,), (5,))
    assert not list(hint.parameters())
    assert torch.equal(hint(s, t), F.mse_loss(s, t))
    assert hint(s, s).item() == 0
    assert made((5,), (5,), adapter="always").adapter.weight.shape == (5, 5)


@pytest.mark.parametrize(("student", "target"), [((6,), (3, 4, 4)), ((2, 6), (3, 6)), ((2, 2, 2, 2), (3, 2, 2, 2))])
def test_hint_refuses_shapes_that_nothing_joins(student, target):
    with pytest.raises(ValueError, match="no adapter from"):
        Hint().setup(Size(student), Size(target))


def test_hint_that_was_not_set_up_refuses_unequal_shapes():
    with pytest.raises(ValueError, match="differ in shape"):
        Hint()(*hidden((6,), (4,)))


@pytest.mark.parametrize("kind", ["hint", "attention"])
def test_samples_of_weight_zero_do_not_matter(kind):
    objective = made((2, 4, 4), (3, 2, 2)) if kind == "hint" else AttentionTransfer()
    weights = torch.tensor([1.0, 0.0, 0.5, 0.0])
    results = []
    for spoil in (False, True):
        s, t = hidden((2, 4, 4), (3, 2, 2))
        if spoil:
            s[1], t[1], s[3] = float("nan"), float("nan"), float("inf")
        s.requires_grad_(), t.requires_grad_()
        objective.zero_grad()
        loss = objective(s, t, weights=weights)
        loss.backward()
        results.append(
            [loss.detach(), s.grad, t.grad, *(parameter.grad.clone() for parameter in objective.parameters())]
        )
    for clean, spoiled in zip(*results, strict=True):
        assert torch.equal(clean, spoiled)


@pytest.mark.parametrize("kind", ["hint", "attention"])
def test_weights_scale_single_samples(kind):
    objective = made((2, 4, 4), (3, 4, 4)) if kind == "hint" else AttentionTransfer()
    s, t = hidden((2, 4, 4), (3, 4, 4))
    weights = torch.tensor([0.2, 1.0, 3.0, 0.0], dtype=torch.float64)
    singles = torch.stack([objective(s[[i]], t[[i]]) for i in range(4)])
    torch.testing.assert_close(objective(s, t, weights=weights), (weights * singles).sum() / 4)
    torch.testing.assert_close(objective(torch.cat([s, s]), torch.cat([t, t])), objective(s, t))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_attention_formula(p):
    s, t = hidden((2, 4, 3), (5, 4, 3))

    def attention(maps):
        flat = (np.abs(maps.numpy()) ** p).sum(1).reshape(len(maps), -1)
        return flat / np.sqrt(np.square(flat).sum(1, keepdims=True))

    expected = np.square(attention(s) - attention(t)).mean()
    assert AttentionTransfer(p)(s, t).item() == pytest.approx(expected, rel=1e-12)


def test_attention_gradients_and_pooling():
    s, t = hidden((2, 4, 4), (3, 2, 2), batch=2)
    objective = AttentionTransfer()
    torch.testing.assert_close(objective(s, t), objective(F.avg_pool2d(s, 2), t))
    assert torch.autograd.gradcheck(objective, (s.requires_grad_(), t.requires_grad_()))


def test_attention_sees_where_and_not_how_much():
    s, _ = hidden((2, 4, 4), (2, 4, 4))
    assert AttentionTransfer()(s, -7 * s).item() == pytest.approx(0, abs=1e-15)
    assert AttentionTransfer()(s, s.flip(1)).item() == pytest.approx(0, abs=1e-15)
    assert AttentionTransfer()(s, s.flip(2)).item() > 1e-3


def test_attention_refuses_vectors_and_other_forms():
    with pytest.raises(ValueError, match=r"feature maps \[C, H, W\]; the target gives \[8\]"):
        AttentionTransfer().setup(Size((2, 4, 4)), Size((8,)))
    with pytest.raises(ValueError, match="reads hidden, not logits"):
        AttentionTransfer()(*hidden((2, 4, 4), (2, 4, 4)), form="logits")


def test_half_precision_is_computed_in_float32():
    s, t = (side.bfloat16() for side in hidden((2, 4, 4), (3, 4, 4), dtype=torch.float32))
    for objective in (made((2, 4, 4), (3, 4, 4)).float(), AttentionTransfer()):
        loss = objective(s, t)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, objective(s.float(), t.float()))


# -- attention rows of transformers --------------------------------------------------------------------------------


def attention(tokens, keys, width, seed):
    """Rows ``[T, width]`` over so many keys, with zeros after them."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tokens, keys, generator=generator, dtype=torch.float64).softmax(-1)
    return F.pad(rows, (0, width - keys))


def test_attention_mse_is_the_squared_distance_of_rows_whatever_their_padding():
    student, target = attention(5, 3, 4, seed=0), attention(5, 3, 8, seed=1)
    expected = ((student[:, :3] - target[:, :3]) ** 2).sum() / 5
    torch.testing.assert_close(AttentionMSE()(student, target), expected)
    torch.testing.assert_close(AttentionMSE()(F.pad(student, (0, 9)), target), expected)


def test_attention_kl_is_the_divergence_of_rows_whatever_their_padding():
    student, target = attention(5, 3, 6, seed=0), attention(5, 3, 3, seed=1)
    expected = F.kl_div(student[:, :3].log(), target, reduction="batchmean")
    torch.testing.assert_close(AttentionKL()(student, target), expected)
    assert AttentionKL()(target, target).item() == 0


@pytest.mark.parametrize("objective", [AttentionKL(), AttentionMSE()])
def test_attention_rows_have_the_right_gradient(objective):
    student, target = attention(4, 3, 3, seed=0).log().requires_grad_(), attention(4, 3, 5, seed=1)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    target[1] = torch.nan
    assert torch.autograd.gradcheck(lambda z: objective(z.softmax(-1), target, weights=weights), student)


@pytest.mark.parametrize("objective", [AttentionKL(), AttentionMSE()])
def test_attention_of_other_tokens_is_refused(objective):
    with pytest.raises(ValueError, match="differ in shape"):
        objective(attention(4, 3, 3, seed=0), attention(5, 3, 3, seed=1))


def test_attention_that_vanishes_stays_finite():
    student = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = AttentionKL()(student, torch.tensor([[0.5, 0.5]]))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_hint_joins_rows_of_tokens():
    """Hidden states ``[T, D]`` of a batch of texts: T differs from batch to batch."""
    hint = made((6,), (4,))
    for tokens in (3, 7):
        hint(*hidden((6,), (4,), batch=tokens)).backward()
    assert hint.adapter.weight.shape == (4, 6) and hint.adapter.weight.grad.any()
