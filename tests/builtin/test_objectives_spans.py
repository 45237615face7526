"""Objectives between different tokenizers: which rows meet, what is compared, and what is counted."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.builtin.objectives import _spans
from kdmesh.builtin.objectives._spans import grouped, paired
from kdmesh.objectives import Aligned, ForwardKL, Universal
from kdmesh.signals.lazy import FactoredLogits

few = settings(max_examples=40, deadline=None, derandomize=True)


def spans_of(*texts):
    """Rows' spans ``[N, 3]`` of samples that are given as their pieces."""
    found = []
    for sample, pieces in enumerate(texts):
        at = 0
        for piece in pieces:
            found.append((sample, at, at := at + len(piece)))
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


@st.composite
def cut_twice(draw):
    """Some texts, each cut in two ways: ``(texts, pieces, other pieces)``."""
    texts = draw(st.lists(st.text("ab c", min_size=1, max_size=12), min_size=1, max_size=3))

    def cut(text):
        places = sorted(draw(st.sets(st.integers(1, len(text) - 1)))) if len(text) > 1 else []
        return [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]

    return texts, [cut(text) for text in texts], [cut(text) for text in texts]


@few
@given(cuts=cut_twice())
def test_spans_are_the_smallest_that_both_sides_bound(cuts):
    texts, pieces, others = cuts
    own, other, count = grouped(spans_of(*pieces), spans_of(*others))
    expected = []
    for sample, text in enumerate(texts):
        ends = [set(spans_of(side[sample])[:, 2].tolist()) for side in (pieces, others)]
        bounds = sorted({0, *(ends[0] & ends[1])})
        assert bounds[-1] == len(text)
        expected += [text[start:stop] for start, stop in pairwise(bounds)]
    assert count == len(expected)
    for side, group in ((pieces, own), (others, other)):
        flat = [piece for sample in side for piece in sample]
        joined = ["".join(piece for piece, g in zip(flat, group.tolist(), strict=True) if g == n) for n in range(count)]
        assert joined == expected
        assert (group.diff() >= 0).all()


def test_gaps_belong_to_either_side_and_ends_of_texts_to_each_other():
    own = torch.tensor([(0, 0, 3), (0, 4, 7), (0, 7, 7), (1, 0, 2), (1, 2, 2)])  # "the" "cat" <end>
    other = torch.tensor([(0, 0, 3), (0, 3, 5), (0, 5, 7), (0, 7, 7), (1, 0, 2)])  # "the" " c" "at" <end>
    mine, theirs, count = grouped(own, other)
    assert mine.tolist() == [0, 1, 2, 3, 4]
    assert theirs.tolist() == [0, 1, 1, 2, 3]
    assert count == 5


def test_bytes_of_one_character_stay_together():
    own, other = torch.tensor([(0, 0, 1), (0, 1, 2), (0, 1, 2), (0, 2, 3)]), torch.tensor([(0, 0, 1), (0, 1, 3)])
    mine, theirs, count = grouped(own, other)
    assert (mine.tolist(), theirs.tolist(), count) == ([0, 1, 1, 1], [0, 1], 2)


def test_nothing_has_no_spans():
    none = torch.empty(0, 3, dtype=torch.int64)
    assert grouped(none, none)[2] == 0
    assert grouped(none, spans_of(["a"]))[2] == 1
    assert paired(none, spans_of(["a"]))[0].tolist() == []


@few
@given(cuts=cut_twice())
def test_rows_are_paired_within_their_sample(cuts):
    _, pieces, others = cuts
    own, other = paired(spans_of(*pieces), spans_of(*others))
    expected, at, their = [], 0, 0
    for mine, theirs in zip(pieces, others, strict=True):
        expected += [(at + n, their + n) for n in range(min(len(mine), len(theirs)))]
        at, their = at + len(mine), their + len(theirs)
    assert list(zip(own.tolist(), other.tolist(), strict=True)) == expected


# -- uld -----------------------------------------------------------------------------------------------------------


def drawn(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_uld_by_hand():
    student = torch.tensor([[0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64).log()
    target = torch.tensor([[0.5, 0.1, 0.2, 0.2], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    spans, source_spans = spans_of(["a", "b"], ["c"]), spans_of(["ab"], ["c"])
    loss = Universal()
    value = loss(student, target, form="probs", spans=spans, source_spans=source_spans)
    first, second = 0.2 + 0.0 + 0.1 + 0.1, abs(0.4 - 1 / 3) + abs(0.3 - 1 / 3) + abs(0.2 - 1 / 3) + 0.1
    assert value.item() == pytest.approx((first + second) / 3)
    assert loss.report() == {"coverage": 2 / 3}


def test_uld_has_the_right_gradient_and_knows_no_order_of_tokens():
    spans, source_spans = spans_of(["a", "bc", "d"], ["e"]), spans_of(["abc", "d"], ["e"])
    student, target = drawn(4, 5, 0).requires_grad_(), drawn(3, 8, 1)

    def loss(s, t):
        return Universal(2.0)(s, t, spans=spans, source_spans=source_spans)

    assert torch.autograd.gradcheck(lambda s: loss(s, target), student)
    torch.testing.assert_close(loss(student.flip(1), target.roll(3, 1)), loss(student, target))


# -- spans ---------------------------------------------------------------------------------------------------------

WORDS = ["", "a", "b", "ab", "c"]
OTHERS = ["c", "bc", "a", "", "b", "d"]


def aligned(tokens=WORDS, source_tokens=OTHERS, **settings):
    made = Aligned(**settings)
    made.setup(torch.Size([len(tokens)]), torch.Size([len(source_tokens)]), tokens=tokens, source_tokens=source_tokens)
    return made


def case(pieces, others):
    """Rows of two vocabularies for texts that are cut in two ways, as keywords."""
    labels = [WORDS.index(piece) for text in pieces for piece in text]
    source_labels = [OTHERS.index(piece) for text in others for piece in text]
    return drawn(len(labels), len(WORDS), 2), drawn(len(source_labels), len(OTHERS), 3), {
        "spans": spans_of(*pieces),
        "source_spans": spans_of(*others),
        "labels": torch.tensor(labels),
        "source_labels": torch.tensor(source_labels),
    }  # fmt: skip


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_one_token_each_is_compared_over_shared_texts_and_the_rest():
    student, target, more = case([["a"]], [["a"]])
    q, p = student.softmax(-1)[0].tolist(), target.softmax(-1)[0].tolist()
    expected = kl([p[2], p[4], p[0], p[1] + p[3] + p[5]], [q[1], q[2], q[4], q[0] + q[3]])
    loss = aligned()
    assert loss(student, target, **more).item() == pytest.approx(expected)
    assert loss.report() == {"coverage": 1.0, "token_coverage": 1.0}


def test_longer_spans_are_compared_by_the_probability_of_their_text():
    student, target, more = case([["ab", "c"]], [["a", "bc"]])
    q, p = student.softmax(-1), target.softmax(-1)
    said, wanted = (q[0, 3] * q[1, 4]).item(), (p[0, 2] * p[1, 1]).item()
    loss = aligned()
    value = loss(student, target, **more).item()
    assert value == pytest.approx(kl([wanted, 1 - wanted], [said, 1 - said]) / 2)
    assert loss.report() == {"coverage": 1.0, "token_coverage": 0.0}


def test_equal_vocabularies_give_the_forward_kl():
    student, target, more = case([["a", "b", "c"], ["c"]], [["a", "b", "c"], ["c"]])
    target, more["source_labels"] = drawn(4, len(WORDS), 7), more["labels"]
    names = ["end", *WORDS[1:]]
    value = aligned(names, names, temperature=2.0)(student, target, **more)
    torch.testing.assert_close(value, ForwardKL(temperature=2.0)(student, target))


@pytest.mark.parametrize(("tokens", "source_tokens"), [(["a", "b"], ["b", "a", "x"]), (["a", "b", "x"], ["b", "a"])])
def test_a_vocabulary_within_the_other_gives_a_finite_loss(tokens, source_tokens):
    spans, student, target = spans_of(["a"]), drawn(1, len(tokens), 0), drawn(1, len(source_tokens), 1)
    more = {"spans": spans, "source_spans": spans, "labels": torch.tensor([0]), "source_labels": torch.tensor([1])}
    q, p = student.softmax(-1)[0], target.softmax(-1)[0]
    if len(tokens) == 2:
        p = p[:2] / p[:2].sum()
    expected = p[1] * (p[1] / q[0]).log() + p[0] * (p[0] / q[1]).log()
    torch.testing.assert_close(aligned(tokens, source_tokens)(student, target, **more), expected)


def test_only_whole_texts_are_shared():
    loss = aligned(["", "a", "\ufffd", "b", "b"], ["b", "\ufffd", "", "a", "a"])
    assert loss.translation.tolist() == [-1, 3, -1, 0, -1]
    assert (loss.rest.tolist(), loss.source_rest.tolist()) == ([0, 2, 4], [1, 2, 4])


PIECES, OTHER = [["a", "b", "ab", "c"], ["c", "a"], ["ab"]], [["a", "b", "a", "bc"], ["c", "a"], ["a", "b"]]


def test_gradients_are_right_for_every_kind_of_span():
    student, target, more = case(PIECES, OTHER)
    weights = torch.tensor([1, 0, 2, 1, 1, 0.5, 1, 3], dtype=torch.float64)
    for form, values in (("logits", target), ("probs", (target / 2).softmax(-1))):
        leaf = student.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda s, f=form, v=values: aligned(temperature=2.0)(s, v, form=f, weights=weights, **more), leaf
        )
    loss = aligned()
    loss(student, target, **more)
    assert loss.report() == {"coverage": 1.0, "token_coverage": 4 / 7}


@pytest.mark.parametrize("make", [aligned, Universal])
def test_a_batch_may_be_split_by_samples(make):
    student, target, more = case(PIECES, OTHER)
    if make is Universal:
        more = {name: more[name] for name in ("spans", "source_spans")}
    total = make()(student, target, **more) * len(student)
    parts = []
    for sample in range(3):
        mine, theirs = (more[name][:, 0] == sample for name in ("spans", "source_spans"))
        part = {name: value[theirs if name.startswith("source") else mine] for name, value in more.items()}
        parts.append(make()(student[mine], target[theirs], **part) * int(mine.sum()))
    torch.testing.assert_close(sum(parts), total)


@pytest.mark.parametrize("make", [aligned, Universal])
def test_pieces_of_large_signals_give_the_same(make, monkeypatch):
    _, target, more = case(PIECES, OTHER)
    if make is Universal:
        more = {name: more[name] for name in ("spans", "source_spans")}
    found = []
    for size in (2**22, 1):
        monkeypatch.setattr(_spans, "PIECE", size)
        hidden, head = drawn(7, 3, 5).requires_grad_(), drawn(len(WORDS), 3, 6).requires_grad_()
        loss = make()(FactoredLogits(hidden, head), target, **more)
        loss.backward()
        found.append((loss.detach(), hidden.grad, head.grad))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("make", [aligned, Universal])
def test_no_common_rows_give_a_loss_of_zero(make):
    student, target, more = case([["a"], []], [[], ["c"]])
    if make is Universal:
        more = {name: more[name] for name in ("spans", "source_spans")}
    student.requires_grad_()
    more = {name: value.clone() for name, value in more.items()}
    more["source_spans"][:, 0] = 1
    loss = make()
    value = loss(student, target, **more)
    value.backward()
    assert value.item() == 0 and not student.grad.any()
    assert loss.report()["coverage"] == 0
    none = {name: rows[:0] for name, rows in more.items()}
    assert make()(student[:0], target[:0], **none).item() == 0


def test_certain_models_stay_finite():
    _, target, more = case([["ab", "c"]], [["a", "bc"]])
    sure = torch.full((2, len(WORDS)), -300.0)
    sure[torch.arange(2), more["labels"]] = 300.0
    for values in (sure, -sure):
        leaf = values.requires_grad_()
        loss = aligned()(leaf, target.float(), **more)
        loss.backward()
        assert loss.isfinite() and leaf.grad.isfinite().all()
        leaf.requires_grad_(False)


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="`spans`"):
        Universal()(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="1 and 2 spans for 1 and 1 rows"):
        Universal()(torch.zeros(1, 2), torch.zeros(1, 2), spans=spans_of(["a"]), source_spans=spans_of(["a", "b"]))
