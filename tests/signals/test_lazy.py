"""Logits made when they are asked for: the same rows, however they are taken, narrowed or combined."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kdmesh.signals import lazy
from kdmesh.signals.lazy import FactoredLogits, Lazy, MixedLogits, blocks, dense


def projected(rows=7, columns=11, width=4, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, shift = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((rows, width), (columns, width), (columns,))
    )
    return FactoredLogits(hidden, weight, shift if bias else None)


def mixture(*sources, weights=None):
    def make(chunks, where):
        stacked = torch.stack([chunk.double() for chunk in chunks]).softmax(-1)
        return stacked.mean(0) if weights is None else (stacked * weights[:, where, None]).sum(0)

    return MixedLogits(sources, make)


@pytest.mark.parametrize("bias", [True, False])
def test_rows_are_those_of_the_linear_layer(bias):
    value = projected(bias=bias)
    whole = F.linear(value.hidden, value.weight, value.bias)
    assert value.shape == whole.shape == (7, 11) and len(value) == 7 and value.dim() == 2
    assert torch.equal(value.dense(), whole) and torch.equal(dense(value), whole) and dense(whole) is whole
    torch.testing.assert_close(value.rows(2, 5), whole[2:5])
    out = torch.empty(3, 11, dtype=torch.float64)
    assert value.rows(2, 5, out) is out
    torch.testing.assert_close(out, whole[2:5])


def test_it_is_made_once_and_with_a_gradient_where_one_is_wanted():
    value = projected()
    value.weight.requires_grad_()
    value = FactoredLogits(value.hidden, value.weight, value.bias)
    with torch.no_grad():
        assert not value.dense().requires_grad
    made = value.dense()
    assert made.requires_grad and value.dense() is made
    plain = value.detach()
    assert not plain.requires_grad and not plain.dense().requires_grad
    assert plain.dense().data_ptr() == made.data_ptr()  # not made anew


def test_sources_of_unequal_precision_are_combined_in_the_higher(monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK", 20)
    value = projected()
    low = FactoredLogits(value.hidden.float(), value.weight.float())
    for sources in ((low, torch.ones(7, 11, dtype=torch.float64)), (low, value), (value, low)):
        combined = mixture(*sources)
        assert combined.dtype == torch.float64
        out = torch.empty(7, 11, dtype=torch.float64)
        torch.testing.assert_close(combined.rows(0, 7, out), mixture(*(dense(s).double() for s in sources)).dense())


@settings(max_examples=30, deadline=None, derandomize=True)
@given(index=st.lists(st.integers(0, 6)), columns=st.integers(1, 11), seed=st.integers(0, 99))
def test_taking_rows_and_narrowing_columns_commute_with_making(index, columns, seed):
    one, two = projected(seed=seed), projected(seed=seed + 100, width=3, bias=False)
    table = torch.randn(7, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = torch.rand(3, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = torch.tensor(index, dtype=torch.int64)
    torch.testing.assert_close(one.take(rows).narrow(columns).dense(), one.dense()[rows, :columns])
    combined = mixture(one, table, two, weights=weights)
    torch.testing.assert_close(combined.take(rows).dense(), combined.dense()[rows])
    torch.testing.assert_close(
        combined.take(rows).take(torch.arange(0, len(rows), 2)).dense(), combined.dense()[rows[::2]]
    )
    sides = [source[:, :columns] for source in (one.dense(), table, two.dense())]
    torch.testing.assert_close(combined.narrow(columns).dense(), mixture(*sides, weights=weights).dense())


@pytest.mark.parametrize("block", [1, 25, 2**18])
def test_combined_rows_do_not_depend_on_how_they_are_cut(monkeypatch, block):
    monkeypatch.setattr(lazy, "BLOCK", block)
    table = torch.randn(7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    before = table.clone()
    weights = torch.rand(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    combined = mixture(projected(), table, weights=weights)
    whole, out = combined.dense(), torch.empty(7, 11, dtype=torch.float64)
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        combined.rows(start, stop, out[start:stop])
        torch.testing.assert_close(combined.rows(start, stop), whole[start:stop])
    torch.testing.assert_close(out, whole)
    assert torch.equal(table, before)


def test_a_narrowed_layer_passes_its_gradient_to_the_whole():
    value = projected()
    value = FactoredLogits(value.hidden, value.weight.requires_grad_(), value.bias.requires_grad_())
    narrow = value.narrow(5)
    assert narrow.requires_grad and narrow.whole[0] is value.weight and narrow.take(torch.tensor([1])).shape == (1, 5)
    narrow.dense().sum().backward()
    assert value.weight.grad[:5].abs().min() > 0 and not value.weight.grad[5:].any()


def test_requires_grad_is_known_of_every_part():
    parts = [projected().hidden, projected().weight, projected().bias]
    assert not FactoredLogits(*parts).requires_grad
    for number in range(3):
        taught = [part.clone().requires_grad_(at == number) for at, part in enumerate(parts)]
        value = FactoredLogits(*taught)
        assert value.requires_grad and mixture(projected(), value).requires_grad
        assert not mixture(projected(), value).detach().requires_grad


def test_sources_of_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match=r"differ in shape: \[7, 11\], \[7, 10\]"):
        mixture(projected(), projected(columns=10))


def test_it_survives_pickling_without_what_was_made():
    value = projected().narrow(6)
    rebuild = pickle.loads(pickle.dumps(value))
    assert torch.equal(rebuild.dense(), value.dense())
    value.dense()
    assert pickle.loads(pickle.dumps(value))._dense is None


def test_moving_to_where_it_is_changes_nothing():
    value = projected()
    assert value.to("cpu") is value
    assert torch.equal(mixture(value, value).to("cpu").dense(), mixture(value, value).dense())


def test_the_parts_that_are_alive_while_rows_are_made():
    assert projected().parts == 1
    assert mixture(projected(), projected()).parts == 2  # the result takes the place of one of them
    low = FactoredLogits(projected().hidden.float(), projected().weight.float())
    assert mixture(low, torch.zeros(7, 11, dtype=torch.float64)).parts == 2  # of another precision: beside it
    assert mixture(torch.zeros(7, 11), torch.ones(7, 11)).parts == 1
    assert mixture(mixture(projected(), projected()), projected()).parts == 3


@given(rows=st.integers(0, 50), columns=st.integers(1, 2**19))
@settings(derandomize=True, deadline=None)
def test_blocks_cover_every_row_once(rows, columns):
    cut = list(blocks(rows, columns, torch.device("cpu")))
    assert [row for a, b in cut for row in range(a, b)] == list(range(rows))
    assert all((b - a) * columns <= max(lazy.BLOCK, columns) * torch.get_num_threads() for a, b in cut)
    assert len(list(blocks(rows, columns, torch.device("meta")))) == (rows > 0)


def test_the_base_says_what_a_subclass_must_write():
    value = Lazy(torch.Size((1, 2)), torch.float32, torch.device("cpu"), False)
    for call in (lambda: value.rows(0, 1), lambda: value.take(torch.zeros(1)), lambda: value.narrow(1), value.detach):
        with pytest.raises(NotImplementedError, match="Lazy must"):
            call()
