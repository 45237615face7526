"""Each formula against the papers', written anew in numpy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kdmesh.errors import MeshError

from kdmesh_gated.attention import Attention
from kdmesh_gated.branched import Branched
from kdmesh_gated.gate import Gate
from kdmesh_gated.taught_kl import TaughtKL

M, B, C, D = 3, 6, 4, 16
DRAWN = torch.Generator().manual_seed(0)
Z = 3 * torch.randn(M, B, C, generator=DRAWN, dtype=torch.float64)
MAPS = torch.randn(B, D, 3, 2, generator=DRAWN, dtype=torch.float64)
FEATURES = torch.randn(M, B, D, generator=DRAWN, dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 3, 0, 1])


def softmax(z, axis=-1):
    mass = np.exp(z - z.max(axis, keepdims=True))
    return mass / mass.sum(axis, keepdims=True)


def log_softmax(z):
    return np.log(softmax(z))


def gate():
    torch.manual_seed(1)
    made = Gate()
    made.setup(("a", "b", "c"), C, (torch.Size((D, 3, 2)),))
    torch.nn.init.normal_(made.norm.weight)
    torch.nn.init.normal_(made.norm.bias)
    return made.double()


def gated(scores, mean, variance, rule):
    """ONE's weights [B, M], of what the linear layer says."""
    weight, bias = (parameter.detach().numpy() for parameter in (rule.norm.weight, rule.norm.bias))
    return softmax(np.maximum(weight * (scores - mean) / np.sqrt(variance + 1e-5) + bias, 0))


def test_the_gate_is_pooling_linear_batch_norm_relu_and_softmax():
    rule = gate()
    weight, bias = rule.scores.weight.detach().numpy(), rule.scores.bias.detach().numpy()
    scores = MAPS.numpy().mean((2, 3)) @ weight.T + bias
    g = gated(scores, scores.mean(0), scores.var(0), rule)
    out = rule.train()(Z, logits=Z, inputs=[MAPS])
    np.testing.assert_allclose(out.detach().numpy(), np.einsum("bm,mbc->bc", g, Z.numpy()), rtol=1e-12)
    mean, variance = 0.1 * scores.mean(0), 0.9 + 0.1 * scores.var(0, ddof=1)
    np.testing.assert_allclose(rule.norm.running_mean.numpy(), mean)
    expected = np.einsum("bm,mbc->bc", gated(scores, mean, variance, rule), Z.numpy())
    with torch.no_grad():  # measured while it trains: running statistics, and they stay
        np.testing.assert_allclose(rule(Z, logits=Z, inputs=[MAPS]).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(rule.norm.running_mean.numpy(), mean)
    np.testing.assert_allclose(rule.eval()(Z, logits=Z, inputs=[MAPS]).detach().numpy(), expected, rtol=1e-12)


def test_a_batch_of_one_is_gated_by_the_running_statistics():
    rule = gate().train()
    one = rule(Z[:, :1], logits=Z[:, :1], inputs=[MAPS[:1]])
    torch.testing.assert_close(one, rule.eval()(Z, logits=Z, inputs=[MAPS])[:1])


@pytest.mark.parametrize("target", "abc")
def test_attention_is_the_softmax_of_a_query_with_every_key(target):
    torch.manual_seed(1)
    rule = Attention()
    rule.setup(("a", "b", "c"), C, (torch.Size((D,)),) * M)
    query, key = (layer.double().weight.detach().numpy() for layer in (rule.query, rule.key))
    assert query.shape == key.shape == (D // 8, D)
    h, a = FEATURES.numpy(), "abc".index(target)
    expected = np.empty((B, C))
    for b in range(B):
        alpha = softmax(np.array([(query @ h[a, b]) @ (key @ h[m, b]) for m in range(M)]))
        assert alpha.min() > 0  # the target listens to itself too
        expected[b] = sum(alpha[m] * Z[m, b].numpy() for m in range(M))
    out = rule(Z, logits=Z, inputs=list(FEATURES), target=target)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-12)
    mixed = rule(Z.softmax(-1), logits=Z, inputs=list(FEATURES), target=target)
    np.testing.assert_allclose(mixed.sum(-1).detach().numpy(), 1.0)


def test_attention_refuses_what_it_has_no_query_for():
    rule = Attention()
    with pytest.raises(MeshError, match="3 sources and 2 inputs"):
        rule.setup(("a", "b", "c"), C, (torch.Size((D,)),) * 2)
    with pytest.raises(MeshError, match="different widths: 8, 16"):
        rule.setup(("a", "b"), C, (torch.Size((16,)), torch.Size((8,))))
    rule.setup(("a", "b"), C, (torch.Size((D,)),) * 2)
    with pytest.raises(MeshError, match="no query for 'leader'"):
        rule(Z[:2].float(), logits=Z[:2].float(), inputs=list(FEATURES[:2].float()), target="leader")
    with pytest.raises(MeshError, match="said nothing yet"):
        rule(Z[:2].float(), logits=Z[:2].float(), inputs=[None, FEATURES[1]], target="a")


@pytest.mark.parametrize("through", [False, True])
def test_the_loss_and_both_its_gradients(through):
    s, t = Z[0].clone().requires_grad_(), Z[1].clone().requires_grad_()
    loss = TaughtKL(temperature=3.0, share=0.25, through=through)(s, t, labels=Y)
    loss.backward()
    p, q, truth = softmax(Z[1].numpy() / 3), softmax(Z[0].numpy() / 3), np.eye(C)[Y]
    apart = np.log(p) - np.log(q)
    divergence = (p * apart).sum(-1, keepdims=True)
    taught = -(truth * log_softmax(Z[1].numpy())).sum()
    assert loss.item() == pytest.approx((9 * divergence.sum() + 0.25 * taught) / B)
    np.testing.assert_allclose(s.grad.numpy(), 9 * (q - p) / 3 / B)
    expected = 0.25 * (softmax(Z[1].numpy()) - truth) / B
    if through:
        expected = expected + 9 * p * (apart - divergence) / 3 / B
    np.testing.assert_allclose(t.grad.numpy(), expected)


def test_the_loss_needs_labels():
    with pytest.raises(ValueError, match="labels="):
        TaughtKL()(Z[0], Z[1])


@pytest.mark.parametrize("shape", [(6,), (1, 8, 8)])
def test_the_network_is_a_trunk_and_branches_whose_logits_it_averages(shape):
    torch.manual_seed(0)
    model, x = Branched(shape, C, trunk=(5,), branch=(7,), branches=3).eval(), torch.randn(4, *shape)
    shared = model.trunk(x)
    bodies = [branch.body(shared) for branch in model.branches]
    assert [tuple(body.shape) for body in bodies] == [(4, 7)] * 3
    heads = [branch.head(body) for branch, body in zip(model.branches, bodies, strict=True)]
    torch.testing.assert_close(model(x), sum(heads) / 3)
    assert not torch.allclose(heads[0], heads[1])
    assert tuple(shared.shape) == ((4, 5) if len(shape) == 1 else (4, 5, 4, 4))


@pytest.mark.parametrize("masked", [(True, True), (True, False), (False, True)], ids=["both", "student", "target"])
def test_taught_kl_of_logits_of_minus_infinity(masked):
    sides = [torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1)]
    for side, out in zip(sides, masked, strict=True):
        side[:, 2] = -float("inf") if out else 0.5
        side.requires_grad_()
    loss = TaughtKL(through=True)(*sides, labels=torch.tensor([0, 1, 3, 4]))
    if masked == (True, False):  # mass where only the student says never
        assert loss == float("inf") and torch.autograd.grad(loss, sides[0])[0].isfinite().all()
        return
    assert loss.isfinite() and all(part.isfinite().all() for part in torch.autograd.grad(loss, sides))


@pytest.mark.parametrize(("masked", "infinite"), [("student", True), ("target", False), ("both", False)])
def test_classes_that_are_ruled_out(masked, infinite):
    """A target's mass where the student says -inf is infinite; else such a class is as if it were not there."""
    student, target, labels = Z[0].clone(), Z[1].clone(), torch.tensor([0, 1, 3, 3, 0, 1])
    if masked != "target":
        student[:, 2] = -torch.inf
    if masked != "student":
        target[:, 2] = -torch.inf
    leaf = student.requires_grad_()
    loss = TaughtKL(2.0)(leaf, target, labels=labels)
    loss.backward()
    assert loss.isinf() == infinite and loss.isfinite() != infinite and leaf.grad.isfinite().all()
    if masked == "both":
        known = torch.tensor([0, 1, 3])
        fewer = torch.tensor([0, 1, 2, 2, 0, 1])
        rest = leaf.detach()[:, known].requires_grad_()
        expected = TaughtKL(2.0)(rest, target[:, known], labels=fewer)
        expected.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(leaf.grad[:, known], rest.grad)
