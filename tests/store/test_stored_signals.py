"""Signals: what a store gives back is what was computed, to the bit, or within the error that it states."""

from __future__ import annotations

import tempfile

import pytest
import torch
from hypothesis import given, strategies
from test_entries import HERE, KEY, digests

from kdmesh.errors import MeshError, RunFailed
from kdmesh.signals import codecs
from kdmesh.signals.lazy import FactoredLogits, Lazy, dense
from kdmesh.signals.sparse import TopKLogits
from kdmesh.store import Store, forms
from kdmesh.store.signals import read_signal, read_texts, write_signal, write_texts


@pytest.fixture
def entry(tmp_path):
    return Store.open(tmp_path).entry(KEY)


@pytest.fixture
def logits():
    return torch.randn(12, 40, generator=torch.Generator().manual_seed(1)) * 4


def again(entry, order):
    entry.find(digests(*order), HERE)
    return read_signal(entry, digests(*order))[0]


def test_top_k_keeps_ids_values_and_the_mass_of_the_tail(entry, logits):
    top = TopKLogits.top(logits, 5)
    write_signal(entry, digests(*range(12)), top, None, HERE)
    back = again(entry, [3, 0, 11])
    assert isinstance(back, TopKLogits) and back.shape == (3, 40) and back.index.dtype is torch.int32
    for part in ("values", "index", "tail"):
        assert torch.equal(getattr(back, part), getattr(top, part)[[3, 0, 11]])
    assert torch.equal(back.dense(), top.dense()[[3, 0, 11]])
    rest = logits.softmax(1).sort(1, descending=True).values[[3, 0, 11], 5:].sum(1)
    assert torch.allclose(back.tail.exp(), rest, atol=1e-6)


def test_top_k_where_some_rows_rule_columns_out_and_others_do_not(entry, logits):
    ruled = logits.clone()
    ruled[:, 7] = float("-inf")
    write_signal(entry, digests(*range(6)), TopKLogits.top(logits[:6], 5), None, HERE)
    write_signal(entry, digests(*range(6, 12)), TopKLogits.top(ruled[6:], 5), None, HERE)
    expected = torch.cat([TopKLogits.top(logits[:6], 5).dense(), TopKLogits.top(ruled[6:], 5).dense()])
    for order in ([2, 9, 0, 11], [1, 2], [8, 7]):
        assert torch.equal(dense(again(entry, order)), expected[order])


def test_top_k_of_another_vocabulary_is_refused(entry, logits):
    write_signal(entry, digests(*range(12)), TopKLogits.top(logits, 5), None, HERE)
    with pytest.raises(MeshError, match="top-k of a head whose vocabulary changed: it has 41 columns, and had 40"):
        write_signal(entry, digests(20), TopKLogits.top(torch.zeros(1, 41), 5), None, HERE)
    with pytest.raises(MeshError, match="two kinds"):
        write_signal(entry, digests(20), TopKLogits.top(torch.zeros(1, 40), 6), None, HERE)


def test_hidden_rows_are_kept_with_one_layer_for_all(entry, tmp_path):
    draws = torch.Generator().manual_seed(2)
    hidden, weight, bias = (torch.randn(*shape, generator=draws) for shape in ((12, 8), (300, 8), (300,)))
    for first in (0, 6):
        part = FactoredLogits(hidden[first : first + 6], weight, bias)
        write_signal(entry, digests(*range(first, first + 6)), part, None, HERE)
    assert len([*tmp_path.rglob("shards/*")]) == 2 and len([*tmp_path.rglob("shared/*")]) == 1
    back = again(Store.open(tmp_path).entry(KEY), [4, 10, 5])
    assert isinstance(back, FactoredLogits) and torch.equal(back.hidden, hidden[[4, 10, 5]])
    assert torch.equal(back.weight, weight) and torch.equal(back.bias, bias)
    assert torch.equal(back.dense(), FactoredLogits(hidden[[4, 10, 5]], weight, bias).dense())
    with pytest.raises(MeshError, match="two kinds"):
        write_signal(entry, digests(30), FactoredLogits(hidden[:1], weight + 1, bias), None, HERE)


def test_rows_whose_layer_is_damaged_are_computed_again(entry, tmp_path):
    value = FactoredLogits(torch.ones(2, 4), torch.ones(30, 4))
    write_signal(entry, digests(0, 1), value, None, HERE)
    (layer,) = tmp_path.rglob("shared/*")
    content = bytearray(layer.read_bytes())
    content[-1] ^= 1
    layer.write_bytes(content)
    store = Store.open(tmp_path)
    again_entry = store.entry(KEY)
    assert not again_entry.find(digests(0, 1), HERE).found.any()
    assert "what its rows share is damaged" in store.notes[0]
    assert write_signal(again_entry, digests(0, 1), value, None, HERE) == 2
    assert torch.equal(dense(again(again_entry, [1])), value.dense()[1:])
    assert torch.equal(dense(again(Store.open(tmp_path).entry(KEY), [1])), value.dense()[1:])


def test_hidden_states_of_texts(entry):
    values = torch.randn(9, 4, 3, generator=torch.Generator().manual_seed(3))
    starts = torch.tensor([0, 2, 2, 9])
    write_signal(entry, digests("a", "b", "c"), values, starts, HERE)
    entry.find(digests("c", "a"), HERE)
    back, begins = read_signal(entry, digests("c", "a"))
    assert begins is not None and begins.tolist() == [0, 7, 9]
    assert torch.equal(dense(back), values[[2, 3, 4, 5, 6, 7, 8, 0, 1]])


@pytest.mark.parametrize("form", forms.DENSE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_form_gives_back_values_within_its_stated_error(entry, logits, form, dtype):
    given = logits.to(dtype)
    write_signal(entry, digests(*range(12)), given, None, HERE, form=form)
    back = dense(again(entry, range(12)))
    (shard,) = entry.shards
    stated = shard.about.get("errors", {}).get("dense", 0.0)
    assert back.dtype is dtype and float((back.double() - given.double()).abs().max()) == stated
    if form == forms.EXACT or getattr(torch, form) is dtype:
        assert stated == 0.0 and torch.equal(back, given)
    if form == forms.INT8:
        spread = (given.double().amax(1) - given.double().amin(1)).max()
        assert 0 < stated <= spread / 254 * (0.501 if dtype is not torch.bfloat16 else 2)
        assert shard.size < 12 * (40 + 8 + 16) + 1500


def test_a_form_keeps_numbers_of_columns_and_the_tail(entry, logits):
    top = TopKLogits.top(logits, 5)
    write_signal(entry, digests(*range(12)), top, None, HERE, form=forms.INT8)
    back = again(entry, range(12))
    assert isinstance(back, TopKLogits) and torch.equal(back.index, top.index) and torch.equal(back.tail, top.tail)
    assert float((back.values - top.values).abs().max()) < 0.05


ROWS = strategies.lists(strategies.floats(-1e4, 1e4, width=32), min_size=3, max_size=3)


@given(strategies.lists(ROWS, min_size=1, max_size=6), strategies.sampled_from(forms.DENSE))
def test_any_values_come_back_within_the_error_of_their_form(rows, form):
    values = {"a": torch.tensor(rows)}
    kept, types, errors = forms.encode(values, form)
    back = forms.decode(kept, types)["a"]
    off, size = (back.double() - values["a"].double()).abs(), values["a"].double().abs()
    assert float(off.max()) == errors.get("a", 0.0)
    spread = (values["a"].double().amax(1) - values["a"].double().amin(1))[:, None]
    bound = {
        "exact": 0 * size, "float32": 0 * size, "bfloat16": size / 256 + 2.0**-134, "float16": size / 2048 + 2**-25,
        "int8": spread / 508 + size.amax(1, keepdim=True) * 2**-22 + 2.0**-140,
    }[form]  # fmt: skip
    assert bool((off <= bound).all())


def test_int8_of_rows_without_spread_is_exact():
    given = {"a": torch.tensor([[2.5, 2.5], [0.0, 0.0], [-3e38, 3e38], [1e-45, 0.0]])}
    kept, types, errors = forms.encode(given, forms.INT8)
    back = forms.decode(kept, types)["a"]
    assert torch.equal(back[:2], given["a"][:2]) and errors["a"] < 3e36 and back.isfinite().all()


@pytest.mark.parametrize(
    ("form", "value", "said"),
    [
        ("float16", 7e4, "up to 70000, which float16 cannot hold"),
        ("int8", float("-inf"), "not finite"),
        ("int8", float("nan"), "not finite"),
        ("int4", 1.0, "exact, float32, bfloat16, float16, int8"),
    ],
)
def test_what_a_form_cannot_hold_is_refused(form, value, said):
    with pytest.raises(MeshError, match=said):
        forms.encode({"a": torch.tensor([[value, 0.0]])}, form)


def test_infinities_pass_where_a_form_has_them():
    given = {"a": torch.tensor([[float("-inf"), 1.0]])}
    for form in (*forms.FLOATS, forms.EXACT):
        kept, types, errors = forms.encode(given, form)
        assert torch.equal(forms.decode(kept, types)["a"], given["a"]) and not any(errors.values())


class Shifted(Lazy):
    """A plugin's signal: rows, and one offset that all of them share."""

    def __init__(self, base, offset):
        self.base, self.offset = base, offset
        super().__init__(base.shape, base.dtype, base.device, False)

    def rows(self, start, stop, out=None):
        return self.base[start:stop] + self.offset

    def pack(self):
        return {"base": self.base, "offset": self.offset}

    @classmethod
    def restore(cls, parts):
        return cls(parts["base"], parts["offset"])


class Said(Shifted):
    shared = ("offset",)


@pytest.mark.parametrize("kind", [Shifted, Said])
def test_a_plugins_signal_is_kept_as_it_is_where_it_says_what_rows_share(entry, monkeypatch, kind):
    monkeypatch.setitem(codecs.KINDS, "own:Kind", kind)
    value = kind(torch.arange(6.0).reshape(3, 2), torch.tensor(0.5))
    write_signal(entry, digests(1, 2, 3), value, None, HERE)
    back = again(entry, [3, 1])
    assert isinstance(back, Said if kind is Said else torch.Tensor)
    assert torch.equal(dense(back), value.dense()[[2, 0]])


WORDS = ["", "four words are here", "naïve 数据 🙂", "two\nlines", "a lone \ud800 one", "\x00\x1b[2J"]


def test_texts_come_back_character_by_character(entry):
    rows = digests(*range(len(WORDS)))
    assert write_texts(entry, rows, WORDS, HERE) == len(WORDS)
    assert entry.find(rows, HERE).found.all()
    assert read_texts(entry, rows.flip(0)) == WORDS[::-1] and read_texts(entry, rows[:0]) == []
    with pytest.raises(RunFailed, match="of kind texts"):
        read_signal(entry, rows)
    with pytest.raises(MeshError, match="two kinds under one key"):
        write_signal(entry, digests("more"), torch.zeros(1, 3), None, HERE)


def test_numbers_are_no_texts(entry):
    write_signal(entry, digests(1), torch.zeros(1, 3), None, HERE)
    entry.find(digests(1), HERE)
    with pytest.raises(KeyError, match="no texts"):
        read_texts(entry, digests(1))


@given(strategies.lists(strategies.text(), max_size=5))
def test_any_texts_come_back(texts):
    with tempfile.TemporaryDirectory() as folder:
        entry = Store.open(folder).entry(KEY)
        assert write_texts(entry, digests(*range(len(texts))), texts, HERE) == len(texts)
        assert entry.find(digests(*range(len(texts))), HERE).found.all()
        assert read_texts(entry, digests(*range(len(texts)))) == texts
