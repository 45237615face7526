"""Batches of tokens: nothing is lost, whatever the padding, packing or order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.streams.order import alike, epoch_order
from kdmesh.streams.tokens import Encoded, Row, Tokens, padded_length, ranges, starts_of

PAD = 0


@st.composite
def samples(draw: st.DrawFn) -> list[Row]:
    """Rows with tokens that say which sample and position they are, and a few units each."""
    found = []
    for number in range(draw(st.integers(1, 9))):
        length = draw(st.integers(1, 40))
        units = sorted(draw(st.sets(st.integers(0, length - 1), max_size=6)))
        ids = [1000 * (number + 1) + position for position in range(length)]
        found.append(Row(ids, units, [ids[unit] for unit in units], [(unit, unit + 1) for unit in units]))
    return found


def told(tokens: Tokens) -> tuple[list[int], list[int], list[int]]:
    """What stands at the tokens, at the units, and how many units each sample has."""
    flat = tokens.ids.flatten()
    return flat[tokens.tokens].tolist(), flat[tokens.units].tolist(), tokens.counts.tolist()


@given(rows=samples(), pack=st.none() | st.integers(4, 64), order=st.randoms(use_true_random=False))
def test_a_batch_holds_its_samples_in_order(rows: list[Row], pack: int | None, order) -> None:
    at = order.sample(range(len(rows)), len(rows))
    tokens = Encoded.of(rows, PAD, pack=pack).batch(torch.tensor(at))
    chosen = [rows[number] for number in at]
    ids, units, counts = told(tokens)
    assert ids == [token for row in chosen for token in row.ids]
    assert units == [row.ids[unit] for row in chosen for unit in row.units] == tokens.targets.tolist()
    assert counts == [len(row.units) for row in chosen] and tokens.lengths.tolist() == [len(row.ids) for row in chosen]
    assert tokens.spans[:, 0].tolist() == [i for i, row in enumerate(chosen) for _ in row.units]
    assert (tokens.ids[~tokens.mask] == PAD).all() and int(tokens.mask.sum()) == len(ids)
    if pack is not None:
        assert tokens.positions is not None and len(tokens.ids) <= len(rows)
        position = tokens.positions.flatten()[tokens.tokens]
        assert position.tolist() == [p for row in chosen for p in range(len(row.ids))]
        assert tokens.ids.shape[1] <= max(pack, *(len(row.ids) for row in rows))


@given(rows=samples(), size=st.integers(1, 5))
def test_parts_hold_every_sample_once_in_a_shape_of_its_own_length(rows: list[Row], size: int) -> None:
    encoded, seen = Encoded.of(rows, PAD), []
    for at, tokens in encoded.parts(size):
        assert len(tokens) == size and 1 <= len(at) <= size
        for sample, row in zip(at.tolist(), tokens.ids, strict=False):
            assert row[: len(rows[sample].ids)].tolist() == rows[sample].ids
            assert len(row) == padded_length(torch.tensor([len(rows[sample].ids)]))
        seen += at.tolist()
    assert sorted(seen) == list(range(len(rows)))


@given(rows=samples())
def test_unit_rows_find_the_units_of_samples(rows: list[Row]) -> None:
    encoded = Encoded.of(rows, PAD)
    for number, row in enumerate(rows):
        assert encoded.targets[encoded.unit_rows(torch.tensor([number]))].tolist() == row.targets
    assert encoded.characters.sum() == sum(len(row.units) for row in rows)
    assert torch.equal(encoded.select(torch.tensor([0, 0])).counts, encoded.counts[[0, 0]])


@given(counts=st.lists(st.integers(0, 5), max_size=8))
def test_ranges_count_up_from_each_begin(counts: list[int]) -> None:
    begins = [10 * number for number in range(len(counts))]
    expected = [begin + i for begin, count in zip(begins, counts, strict=True) for i in range(count)]
    assert ranges(torch.tensor(begins, dtype=torch.int64), torch.tensor(counts, dtype=torch.int64)).tolist() == expected
    assert starts_of(torch.tensor(counts, dtype=torch.int64)).tolist() == [
        sum(counts[:i]) for i in range(len(counts) + 1)
    ]


def test_padding_is_at_most_half_and_of_long_samples_a_fifth() -> None:
    lengths = torch.arange(1, 3000)
    widths = padded_length(lengths)
    assert (widths >= lengths).all() and (widths[8:] < 2 * lengths[8:]).all()
    assert (5 * (widths - lengths)[32:] <= widths[32:]).all()
    assert len(widths.unique()) < 36


@given(n=st.integers(1, 300), size=st.integers(1, 16), drop=st.booleans())
def test_batches_of_samples_alike_hold_every_sample_once(n: int, size: int, drop: bool) -> None:
    sizes = torch.arange(n) * 7919 % 101
    order = epoch_order(0, "train", 0, n)
    mixed = alike(order, sizes, size, drop, seed=3)
    assert len(mixed) == (n // size * size if drop else n)
    assert len(mixed.unique()) == len(mixed)
    whole = mixed[: n // size * size].view(-1, size)
    before = order[: n // size * size].view(-1, size)
    if len(whole):
        now, then = ((sizes[batches].amax(1) - sizes[batches].amin(1)).sum() for batches in (whole, before))
        assert now <= then
