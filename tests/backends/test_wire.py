"""Values as bytes: what was written is read again, and no bytes do anything else than give a value or be refused."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kdmesh.backends.wire import DTYPES, PREFIX, Garbled, pack, unpack

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20), st.binary(max_size=20)
)
keys = st.recursive(st.one_of(st.none(), st.integers(), st.text(max_size=8)), lambda one: st.tuples(one, one))
some = arrays.arrays(
    st.sampled_from(DTYPES).map(np.dtype), arrays.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4)
)
values = st.recursive(
    st.one_of(scalars, some),
    lambda one: st.one_of(st.lists(one, max_size=4), st.lists(one, max_size=4).map(tuple),
                          st.dictionaries(keys, one, max_size=4)),
    max_leaves=12,
)  # fmt: skip


def same(one, other):
    """Equal in every bit, and of one type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@given(values)
def test_what_was_written_is_read_again(value):
    assert same(unpack(pack(value)), value)


@given(values, st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=300)
def test_changed_bytes_are_a_value_or_refused(value, at, byte):
    message = bytearray(pack(value))
    message[at % len(message)] = byte
    try:
        found = unpack(bytes(message))
    except Garbled:
        return
    pack(found)  # a value of the same few kinds


@given(values, st.integers(0, 10**6))
def test_a_message_that_is_cut_short_is_refused(value, left):
    message = pack(value)
    with pytest.raises(Garbled):
        unpack(message[: left % len(message)])


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_refused(message):
    with suppress(Garbled):
        unpack(message)


def made(tree, rest=b""):
    header = json.dumps(tree).encode()
    return PREFIX.pack(len(header)) + header + rest


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (made(["o", "builtins.eval"]), "of the kind 'o'"),
        (made({"a": 1}), "no value"),
        (made([]), "no value"),
        (made([1]), "no value"),
        (made(["a", "object", [1]], b"12345678"), "an array of 'object'"),
        (made(["a", "float32", [2**62, 4]]), "bytes where 0 are left"),
        (made(["a", "float32", [-1]]), "of shape"),
        (made(["a", "float32", [True]], b"1234"), "of shape"),
        (made(["a", "bool", [1]], b"\x02"), "truth values that are none"),
        (made(["b", -1]), "bytes where"),
        (made(["b", 2], b"123"), "1 bytes that belong to nothing"),
        (made(["n", "1e999"]), "of the kind 'n'"),
        (made(["d", ["l"]]), "something else than pairs"),
        (made(["d", [["l"], 1]]), "a key of list"),
        (made(["d", ["a", 1], ["a", 2]]), "one key twice"),
        (PREFIX.pack(2**40) + b"{}", "a header of"),
        (PREFIX.pack(3) + b"NaN", "no JSON"),
        (b"", "a message of 0 bytes"),
    ],
)
def test_what_is_no_value_is_said(message, said):
    with pytest.raises(Garbled, match=said):
        unpack(message)


def test_values_in_values_have_an_end():
    deep = "x"
    for _ in range(40):
        deep = ["l", deep]
    with pytest.raises(Garbled, match="deep"):
        unpack(made(deep))
    with pytest.raises(Garbled):
        unpack(PREFIX.pack(200_000) + b"[" * 200_000)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), np.array(["a"]), lambda: None, 1j])
def test_what_does_not_travel_is_refused_before_it_leaves(value):
    with pytest.raises(Garbled):
        pack(value)


def test_arrays_are_the_reader_s_own():
    array = np.arange(6.0).reshape(2, 3)[:, ::2]
    found = unpack(pack(array))
    assert found.flags.writeable and found.flags.c_contiguous and np.array_equal(found, array)


@pytest.mark.parametrize("shape", [[0, 10**30], [0, 2**39, 2**39]])
def test_a_shape_that_no_array_has_is_garbled(shape):
    header = json.dumps(["a", "float32", shape]).encode()
    with pytest.raises(Garbled):
        unpack(PREFIX.pack(len(header)) + header)
