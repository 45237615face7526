"""Values that other libraries return for the same inputs, and gradients against those of plain doubles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kdmesh.builtin.objectives import _chunked
from kdmesh.builtin.objectives.offers import OBJECTIVES
from kdmesh.signals.lazy import FactoredLogits, faced
from kdmesh.signals.sparse import TopKLogits

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kd_losses.json").read_text())
OFFERS = {offer.name: offer for offer in OBJECTIVES}
COLUMNS = GOLDEN["inputs"]["shape"][-1]


def named(case):
    return f"{case['library']} {case.get('objective', case.get('parts'))}"


every_case = pytest.mark.parametrize("case", GOLDEN["cases"], ids=named)


def inputs(tokens="valid", dtype=torch.float32):
    i = torch.arange(110, dtype=torch.float64).view(GOLDEN["inputs"]["shape"])
    student, teacher = (torch.sin(0.7 * i) * 2).float().to(dtype), (torch.cos(1.3 * i) * 3).float().to(dtype)
    valid = torch.tensor(GOLDEN["inputs"]["labels"]) != -100
    return (student[valid], teacher[valid]) if tokens == "valid" else (student, teacher)


def loss_of(case, student, teacher):
    """A case's loss as kdmesh divides it; ``student`` may be lazy."""
    signal = case.get("signal")
    target = teacher if signal is None else TopKLogits.top(teacher, signal["k"], signal["tail"])
    if signal is not None and isinstance(student, torch.Tensor):
        student, target = faced(student, target)
    total = 0
    for factor, what in case.get("parts", [[1, case.get("objective")]]):
        ((name, config),) = what.items()
        total = total + factor * OFFERS[name].make(config).forward(student, target, form="logits")
    return total


def as_they_divide(case, loss):
    """What the library returns for a loss that is a mean over tokens."""
    tokens = len(inputs()[0])
    return loss * {"token": 1, "element": 1 / COLUMNS, "nothing": tokens}[case.get("per", "token")]


def precision(case):
    return {"abs": case["within"]} if "within" in case else {"rel": 2e-6}


@every_case
def test_value_of_another_library(case):
    student, teacher = inputs(case["tokens"])
    loss = loss_of(case, student, teacher)
    assert loss.dtype == torch.float32
    assert as_they_divide(case, loss).item() == pytest.approx(case["value"], **precision(case))


@every_case
def test_value_of_another_library_in_chunks(case, monkeypatch):
    monkeypatch.setattr(_chunked, "LARGE", 0)
    monkeypatch.setattr(_chunked, "CHUNK", 2 * 2 * 11)
    student, teacher = (side.flatten(0, -2) for side in inputs(case["tokens"]))
    loss = loss_of(case, FactoredLogits(student, torch.eye(COLUMNS)), teacher)
    rows = len(student) / GOLDEN["inputs"]["shape"][0] if case["tokens"] == "all" else 1  # a mean over sequences
    assert as_they_divide(case, loss * rows).item() == pytest.approx(case["value"], **precision(case))


def by_hand(what, s, t):
    """A divergence of doubles ``[n, C]`` by its formula, so that autograd gives its gradient; a mean over rows."""
    ((name, config),) = what.items()
    temperature = config.get("temperature", 1)
    p, q = (t / temperature).softmax(-1), (s / temperature).softmax(-1)
    beta, skew = config.get("beta", 0.5), config.get("skew", 0.1)

    def kl(one, other):
        return one * (one / other).log()

    m = beta * p + (1 - beta) * q
    middle = {0: kl(p, q), 1: kl(q, p)}.get(beta, beta * kl(p, m) + (1 - beta) * kl(q, m))
    elements = {
        "ce": -p * q.log(),
        "kl": kl(p, q),
        "reverse_kl": kl(q, p),
        "jsd": middle,
        "skewed_kl": kl(p, skew * p + (1 - skew) * q),
        "skewed_reverse_kl": kl(q, skew * q + (1 - skew) * p),
        "total_variation": (p - q).abs() / 2,
    }[name]
    return elements.sum() / len(s) * (temperature**2 if config.get("t2_scale", True) else 1)


def outcomes(signal, s, t):
    """Both sides' logits of what is compared: the teacher's likeliest outputs, and perhaps all others as one."""
    at = t.topk(signal["k"], -1).indices
    sides = [side.log_softmax(-1) for side in (s, t)]
    if signal["tail"] == "renormalise":
        return [side.gather(-1, at) for side in sides]
    return [torch.cat([one.gather(-1, at), (1 - one.exp().gather(-1, at).sum(-1, keepdim=True)).log()], -1)
            for one in sides]  # fmt: skip


@pytest.mark.parametrize("chunks", [False, True], ids=["whole", "in chunks"])
@every_case
def test_gradient_of_plain_doubles(case, chunks, monkeypatch):
    if chunks:
        monkeypatch.setattr(_chunked, "LARGE", 0)
        monkeypatch.setattr(_chunked, "CHUNK", 2 * 2 * 11)
    wide = inputs(dtype=torch.float64)[0].requires_grad_()
    s, t = wide, inputs(dtype=torch.float64)[1]
    if "signal" in case:
        s, t = outcomes(case["signal"], s, t)
    expected = sum(f * by_hand(what, s, t) for f, what in case.get("parts", [[1, case.get("objective")]]))
    (wanted,) = torch.autograd.grad(expected, wide)
    student, teacher = inputs()
    student.requires_grad_()
    loss = loss_of(case, FactoredLogits(student, torch.eye(COLUMNS)) if chunks else student, teacher)
    (found,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=2e-7)


def test_soft_cross_entropy_is_forward_kl_plus_the_entropy_of_the_teacher():
    student, teacher = inputs()
    gap = OFFERS["ce"].make()(student, teacher, form="logits") - OFFERS["kl"].make()(student, teacher)
    assert gap.item() == pytest.approx(GOLDEN["entropy_of_teacher"], rel=1e-6)


def test_what_kdmesh_does_not_offer_is_what_the_table_says():
    """DistillKit's `zero`: a loss that is not 0 where both say the same, so no rule of kdmesh's is it."""
    (case,) = GOLDEN["not_in_kdmesh"]
    student, teacher = inputs()
    best = teacher.softmax(-1).topk(3)
    p, q = best.values / best.values.sum(-1, keepdim=True), student.softmax(-1).gather(-1, best.indices)
    assert (p * (p / q).log()).sum(-1).mean().item() == pytest.approx(case["kl"], rel=2e-6)
    p_at_best = teacher.softmax(-1).gather(-1, best.indices)
    assert (p * (p / p_at_best).log()).sum(-1).mean() > 0.1
