"""Top-k logits against a dense reference: every row is a distribution, with the tail spread evenly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.builtin.objectives.forward_kl import ForwardKL
from kdmesh.builtin.signals.top_k import TopK
from kdmesh.errors import MeshError
from kdmesh.hosts.packing import pack, unpack
from kdmesh.hosts.publications import Publication
from kdmesh.signals import sparse
from kdmesh.signals.lazy import FactoredLogits, MixedLogits, joined, leaves
from kdmesh.signals.sparse import TopKLogits, likeliest

CPU = torch.device("cpu")


def logits(rows, columns, seed=0):
    return 3 * torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def again(publication):
    """Taken apart for a checkpoint, and put together."""
    return Publication.of({(kind, name): tensor for kind, name, tensor in publication.tensors()})


def reference(whole, k):
    """Row by row, without the code under test: the k largest probabilities, the sum of others that are not 0 evenly."""
    found = whole.softmax(1)
    for row, asked in zip(found, whole, strict=True):
        order = sorted(range(len(row)), key=lambda column: -row[column].item())
        rest = [column for column in order[k:] if asked[column] > -torch.inf]
        if rest:
            row[rest] = sum(row[column].item() for column in rest) / len(rest)
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(columns=st.integers(1, 12), k=st.integers(1, 12), rows=st.integers(0, 5), seed=st.integers(0, 99))
def test_rows_are_distributions_with_a_flat_tail(columns, k, rows, seed):
    k, whole = min(k, columns), logits(rows, columns, seed)
    value = TopKLogits.top(whole, k)
    assert value.shape == whole.shape and value.values.shape == (rows, k) and value.index.dtype == torch.int32
    made = value.dense()
    torch.testing.assert_close(made.exp(), reference(whole, k))
    torch.testing.assert_close(made.exp().sum(1), torch.ones(rows, dtype=torch.float64))
    if k == columns:
        torch.testing.assert_close(made, whole.log_softmax(1))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    columns=st.integers(1, 20),
    k=st.integers(1, 20),
    narrow=st.integers(1, 20),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_what_a_source_rules_out_gets_no_mass(columns, k, narrow, share, seed):
    k, narrow, whole = min(k, columns), min(narrow, columns), logits(4, columns, seed)
    mask = torch.rand(4, columns, generator=torch.Generator().manual_seed(seed)) < share
    mask[torch.arange(4), torch.arange(4) % narrow] = False  # a row says something, also of the first columns
    mask[3] = False
    whole.masked_fill_(mask, -torch.inf)
    value, left = TopKLogits.top(whole, k), torch.arange(4) % 3
    made = value.dense()
    torch.testing.assert_close(made.exp(), reference(whole, k))
    assert torch.equal(made.isneginf(), mask) and (value.ruled_out is None) == (not mask.any())
    torch.testing.assert_close(value.narrow(narrow).dense(), made[:, :narrow].log_softmax(1))
    plain = TopKLogits.top(logits(2, columns), k)
    for parts in ([value, plain], [plain, value], [plain, plain]):
        assert torch.equal(joined(parts).dense(), torch.cat([part.dense() for part in parts]))
    back, _ = unpack({0: pack((value.take(left), {}))}, CPU)[0]
    kept = again(Publication(value, None, 1)).values.take(left)
    assert torch.equal(back.dense(), made[left]) and torch.equal(kept.dense(), made[left])
    student = logits(4, columns, seed + 1).masked_fill(mask, -torch.inf).requires_grad_()
    loss = ForwardKL(temperature=2.0)(student, made)
    p, log_q = (reference(whole, k).log() / 2).softmax(1), (student / 2).log_softmax(1)
    expected = torch.where(mask, 0.0, p * (p.log() - log_q).masked_fill(mask, 0.0)).sum() * 4 / 4
    torch.testing.assert_close(loss, expected)
    found, gradient = (torch.autograd.grad(one, student)[0] for one in (loss, expected))
    assert found.isfinite().all()
    torch.testing.assert_close(found, gradient)


def test_a_row_that_rules_out_all_says_nothing_and_is_nan():
    """As its softmax is."""
    whole = logits(2, 9).index_fill_(0, torch.tensor([1]), -torch.inf)
    made = TopKLogits.top(whole, 2).dense()
    assert made[0].isfinite().all() and made.softmax(1)[1].isnan().all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(columns=st.integers(2, 12), k=st.integers(1, 12), narrow=st.integers(1, 12), seed=st.integers(0, 99))
def test_narrowed_columns_are_renormalised_with_the_tails_share(columns, k, narrow, seed):
    k, narrow = min(k, columns), min(narrow, columns)
    value = TopKLogits.top(logits(4, columns, seed), k)
    sides = value.narrow(narrow)
    assert sides.shape == (4, narrow)
    torch.testing.assert_close(sides.dense(), value.dense()[:, :narrow].log_softmax(1))
    rebuild = sides.narrow(max(1, narrow - 1))
    torch.testing.assert_close(rebuild.dense(), value.dense()[:, : max(1, narrow - 1)].log_softmax(1))


def test_rows_are_taken_joined_and_made_into_memory():
    value = TopKLogits.top(logits(7, 9), 3)
    whole, out = value.dense(), torch.empty(3, 9, dtype=torch.float64)
    assert value.rows(2, 5, out) is out and torch.equal(out, whole[2:5])
    index = torch.tensor([4, 0, 4])
    assert torch.equal(value.take(index).dense(), whole[index])
    assert torch.equal(joined([value.take(index), value]).dense(), torch.cat([whole[index], whole]))
    assert value.detach() is value and value.to("cpu") is value and not value.requires_grad


def test_large_logits_are_read_some_rows_at_a_time(monkeypatch):
    draw = torch.Generator().manual_seed(1)
    hidden, weight = (torch.randn(n, 4, dtype=torch.float64, generator=draw) for n in (7, 11))
    value, asked = FactoredLogits(hidden, weight, None), []
    inner = FactoredLogits.rows

    def rows(self, start, stop, out=None):
        asked.append((start, stop))
        return inner(self, start, stop, out)

    monkeypatch.setattr(FactoredLogits, "rows", rows)
    monkeypatch.setattr(sparse, "LARGE", 25)
    found = TopK(4)(value)
    assert asked == [(0, 2), (2, 4), (4, 6), (6, 7)]
    torch.testing.assert_close(found.dense(), TopKLogits.top(hidden @ weight.T, 4).dense())


@pytest.mark.parametrize("large", [2**24, 24])
def test_columns_that_another_finds_likeliest(monkeypatch, large):
    monkeypatch.setattr(sparse, "LARGE", large)  # some rows at a time
    draw = torch.Generator().manual_seed(3)
    source = FactoredLogits(*(torch.randn(n, 4, dtype=torch.float64, generator=draw) for n in (7, 11)))
    reader = FactoredLogits(*(torch.randn(n, 4, dtype=torch.float64, generator=draw) for n in (7, 11)))
    asked = likeliest(reader, 3)
    assert torch.equal(asked.long(), reader.dense().topk(3)[1]) and asked.dtype == torch.int32
    assert torch.equal(likeliest(reader.dense(), 3), asked)
    whole = source.dense().clone()
    for value in (source, whole):
        made, probs = TopKLogits.top(value, 3, index=asked), whole.softmax(1)
        assert torch.equal(made.index, asked) and not torch.equal(asked.long(), whole.topk(3)[1])
        torch.testing.assert_close(made.values.exp(), probs.gather(1, asked.long()))
        torch.testing.assert_close(made.tail.exp(), 1 - probs.gather(1, asked.long()).sum(1))
    whole[0, asked[0, 0].item()] = whole[1, 0] = -torch.inf  # named, and elsewhere
    made = TopKLogits.top(whole, 3, index=asked).dense()
    torch.testing.assert_close(made.exp().sum(1), torch.ones(7, dtype=torch.float64))
    assert made[0, asked[0, 0].item()] == made[1, 0] == -torch.inf
    assert torch.equal(TopKLogits.top(whole, 3).index, TopKLogits.top(whole, 3, index=likeliest(whole, 3)).index)


def test_a_tiny_tail_stays_finite_and_half_precision_is_raised():
    value = TopKLogits.top(torch.tensor([[90.0, 0.0, -20.0]]), 1)
    assert value.values.tolist() == [[0.0]] and value.tail.item() == pytest.approx(-90)
    assert value.dense().isfinite().all()
    assert TopKLogits.top(torch.ones(2, 4, dtype=torch.bfloat16), 2).dtype == torch.float32


def test_more_columns_than_there_are_is_refused():
    with pytest.raises(MeshError, match=r"the likeliest 4 of 3 outputs\n  instead: k: 3"):
        TopK(4)(torch.zeros(2, 3))


def test_it_crosses_and_is_kept_as_it_is():
    value, plain = TopKLogits.top(logits(6, 50).float(), 3), torch.ones(6, 2)
    for name, (first, named) in {"": (value, {}), "x@y": (plain, {"x@y": value, "z": plain})}.items():
        packed = pack((first, named))
        found, more = unpack({0: packed}, CPU)[0]
        back = more[name] if name else found
        assert isinstance(back, TopKLogits) and back.shape == value.shape and back.dtype == value.dtype
        assert all(torch.equal(a, b) for a, b in zip(leaves(back), leaves(value), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(more.values(), named.values(), strict=True) if a is not back)
    assert sum(array.size for _, array, _ in pack((value, {}))[0][2]) == 6 * (2 * 3 + 1) + 1
    starts = torch.tensor([0, 2, 2, 6])
    rebuild = again(Publication(value, None, 1, starts))
    rows, _ = rebuild.at(torch.tensor([2, 0]), CPU)
    assert torch.equal(rows.dense(), value.dense()[[2, 3, 4, 5, 0, 1]])


@pytest.mark.parametrize("source", ["alone", "combined"])
def test_a_loss_in_chunks_is_that_of_the_dense_target(monkeypatch, source):
    draw = torch.Generator().manual_seed(2)
    hidden, weight = (torch.randn(n, 4, dtype=torch.float64, generator=draw) for n in (7, 11))
    target = TopKLogits.top(logits(7, 11, 3), 4)
    if source == "combined":
        target = MixedLogits(
            [target, TopKLogits.top(logits(7, 11, 4), 2)], lambda chunks, where: (chunks[0] + chunks[1]) / 2
        )
    found = []
    for large, wanted in ((10, target), (2**24, target.dense())):
        monkeypatch.setattr("kdmesh.builtin.objectives._chunked.LARGE", large)
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        loss = ForwardKL(temperature=2.0)(FactoredLogits(*leaves), wanted)
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
