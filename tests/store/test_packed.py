"""Packed sparse distributions: any columns come back as they were, values within the error that is stated."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_entries import HERE, KEY, digests

from kdmesh.errors import MeshError
from kdmesh.signals.sampled import SampledProbs
from kdmesh.signals.sparse import TopKLogits
from kdmesh.store import Store, bits, forms
from kdmesh.store.signals import of_sample, read_signal, write_signal


@pytest.fixture
def entry(tmp_path):
    return Store.open(tmp_path).entry(KEY)


def logits(rows, columns, seed=0, scale=4.0):
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def kept(value, form=forms.PACKED):
    parts = value.pack()
    columns = int(parts.pop("columns"))
    stored, types, errors = forms.encode(parts, form, columns)
    back = forms.decode(stored, types)
    return type(value).restore({**back, "columns": torch.tensor(columns)}), stored, errors


@given(st.integers(1, 2**32), st.data())
def test_any_numbers_come_back_from_as_many_bits_as_they_need(count, data):
    width, k = bits.width(count), data.draw(st.integers(0, 40))
    row = st.lists(st.integers(0, count - 1), min_size=k, max_size=k)
    drawn = data.draw(st.lists(row, min_size=1, max_size=4))
    numbers = torch.tensor(drawn, dtype=torch.int64).view(len(drawn), k)
    numbers = torch.cat([numbers, torch.full((1, k), count - 1)])
    packed = bits.pack(numbers, width)
    assert packed.dtype is torch.uint8 and packed.shape == (len(numbers), -(-k * width // 8))
    assert 2**width >= count and (width == 1 or 2 ** (width - 1) < count)
    assert torch.equal(bits.unpack(packed, k, width), numbers)


def test_bits_lie_one_after_the_other():
    numbers = torch.tensor([[1, 0, 3], [5, 7, 2]])
    packed = bits.pack(numbers, 3)
    assert [sum(one << 3 * at for at, one in enumerate(row)) for row in numbers.tolist()] == [
        int.from_bytes(bytes(row), "little") for row in packed.tolist()
    ]
    for wrong in (8, -1):
        with pytest.raises(MeshError, match="do not fit into 3 bits"):
            bits.pack(torch.tensor([[wrong]]), 3)
    assert bits.width(151_936) == 18 and bits.size(10, 18) == 23


def test_rows_are_packed_some_at_a_time(monkeypatch):
    numbers = torch.randint(0, 1000, (7, 5), generator=torch.Generator().manual_seed(0))
    whole = bits.pack(numbers, 10)
    monkeypatch.setattr(bits, "ROWS", 3)
    assert torch.equal(bits.pack(numbers, 10), whole) and torch.equal(bits.unpack(whole, 5, 10), numbers)


@settings(deadline=None)
@given(
    columns=st.integers(1, 300), k=st.integers(1, 300), rows=st.integers(0, 5), seed=st.integers(0, 99),
    scale=st.sampled_from([0.0, 0.1, 4.0, 100.0]), ruled=st.floats(0, 0.9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_any_top_k_comes_back(columns, k, rows, seed, scale, ruled, dtype):
    k, whole = min(k, columns), logits(rows, columns, seed, scale).to(dtype)  # scale 0: all are ties
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < ruled
    mask[:, 0] = False
    value = TopKLogits.top(whole.masked_fill(mask, -torch.inf), k)
    back, stored, errors = kept(value)
    assert torch.equal(back.index, value.index) and torch.equal(back.tail, value.tail)
    assert back.values.dtype is dtype and torch.equal(back.values.isneginf(), value.values.isneginf())
    finite = value.values.isfinite()
    off = (back.values - value.values)[finite].abs().double()
    assert float(off.max() if off.numel() else 0.0) == errors["values"]
    low = value.values.masked_fill(~finite, 0.0).amin(1, keepdim=True).abs() if rows else torch.zeros(0, 1)
    step = (low.double() * value.values.masked_fill(~finite, 0.0).abs().double()).sqrt() / 254 + low / 254**2
    shift = step.amax(1, keepdim=True)  # what brings the sum back to 1 moves a row by no more than its largest step
    assert bool(((back.values - value.values).abs()[finite] <= (step + shift)[finite] * 1.01 + 1e-5).all())
    mass = back.values.double().exp().sum(1) + back.tail.double().exp()
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=2e-6, rtol=0)
    assert sum(one[0].numel() * one.element_size() for one in stored.values() if rows) <= (
        k + -(-k * bits.width(columns) // 8) + 2 * dtype.itemsize + -(-columns // 8)
    )


@given(columns=st.integers(1, 60), k=st.integers(0, 60), draws=st.integers(1, 30), seed=st.integers(0, 9))
@settings(deadline=None)
def test_any_draw_comes_back(columns, k, draws, seed):
    value = SampledProbs.draw(logits(3, columns, seed), min(k, columns), draws)
    back, _, _ = kept(value)
    assert isinstance(back, SampledProbs) and torch.equal(back.index, value.index)
    assert torch.equal(back.tail, value.tail) and float((back.weights() - value.weights()).abs().max()) < 0.02


@pytest.mark.parametrize("value", [TopKLogits.top(logits(9, 4000), 32), SampledProbs.draw(logits(9, 4000), 10, 26)])
def test_a_store_keeps_and_shows_it(entry, value):
    write_signal(entry, digests(*range(9)), value, None, HERE, form=forms.PACKED)
    write_signal(entry, digests(9), value.take(torch.tensor([3])), None, HERE, form=forms.PACKED)
    assert entry.find(digests(4, 9, 0), HERE).found.all()
    back, _ = read_signal(entry, digests(4, 9, 0))
    assert torch.equal(back.index, value.index[[4, 3, 0]]) and torch.equal(back.tail, value.tail[[4, 3, 0]])
    shard = max(entry.shards, key=len)
    assert 0 < shard.about["errors"]["values"] < 0.1
    shown = of_sample(shard, int(shard.places(shards_number(4))[0]))
    assert shown["index"] == value.index[4].tolist() and len(shown["values"]) == value.values.shape[1]


def shards_number(number):
    from kdmesh.store import shards

    return shards.numbers(digests(number))


def test_a_head_whose_vocabulary_changed_is_refused(entry):
    write_signal(entry, digests(0), TopKLogits.top(logits(1, 1000), 5), None, HERE, form=forms.PACKED)
    for columns in (1001, 999, 4000):
        with pytest.raises(MeshError, match=f"vocabulary changed: it has {columns:,} columns, and had 1,000"):
            write_signal(entry, digests(1), TopKLogits.top(logits(1, columns), 5), None, HERE, form=forms.PACKED)
    narrowed = TopKLogits.top(logits(1, 1000), 1000).narrow(900)
    with pytest.raises(MeshError, match="of a head with 900 columns: its vocabulary changed"):
        forms.encode(narrowed.pack(), forms.PACKED, 900)


def test_what_is_no_sparse_distribution_is_refused(entry):
    top = TopKLogits.top(logits(2, 50), 5)
    odd = top.of(*top.leaves())
    odd.values = odd.values.clone()
    odd.values[1, 2] = torch.nan
    with pytest.raises(MeshError, match="NaN"):
        write_signal(entry, digests(0, 1), odd, None, HERE, form=forms.PACKED)
    odd.values[1, 2] = 1.0
    with pytest.raises(MeshError, match="miss 1 by"):
        write_signal(entry, digests(0, 1), odd, None, HERE, form=forms.PACKED)
    with pytest.raises(MeshError, match="names no columns"):
        write_signal(entry, digests(0, 1), logits(2, 50), None, HERE, form=forms.PACKED)
