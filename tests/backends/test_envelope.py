"""Calls and results as bytes, and what stays an object."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.backends import envelope
from kdmesh.graph.fragment import Fragment


class Handle:
    """Another call's result that is not there yet; no pickle may hold one."""

    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        raise AssertionError("a handle travels beside the envelope")


plain = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.booleans(), plain), max_size=6), st.integers(1, 3))
def test_a_call_comes_out_as_it_went_in(given, results):
    args = [Handle(value) if later else value for later, value in given]
    sent, handles = envelope.call((3, 7), "evaluate_consensus", args, results, Handle)
    arrived = [envelope.result(handle.value) for handle in handles]
    expected = (3, 7), "evaluate_consensus", [value for _, value in given], results
    assert envelope.opened(sent, arrived) == expected


def test_a_segment_is_sent_whole():
    fragment = Fragment("host0", "stage a", 2, [(4, None)], complete=range(4, 5))
    assert envelope.opened(envelope.call((1, 1), "run", [fragment], 2, Handle)[0], [])[2] == [fragment]


@given(plain)
def test_a_small_result_is_bytes(given):
    made = envelope.result(given)
    assert isinstance(made, bytes) and envelope.value(made) == given


@pytest.mark.parametrize(("numbers", "small"), [(10, True), (envelope.SMALL // 8, False)])
def test_large_arrays_stay_objects_and_small_ones_keep_their_bits(numbers, small):
    given = {"x": [("", np.random.default_rng(0).standard_normal(numbers), "torch.float64")]}
    made = envelope.result(given)
    assert isinstance(made, bytes) is small and (small or made is given)
    assert envelope.value(made)["x"][0][1].tobytes() == given["x"][0][1].tobytes()


def test_bytes_are_never_taken_for_an_envelope():
    large = pickle.dumps("not this") * envelope.SMALL
    assert envelope.value(envelope.result(large)) == large


def test_large_files_travel_beside_the_envelope():
    files = {"host0.json": b"{}", "host0.safetensors": bytes(envelope.SMALL + 1)}
    sent, beside = envelope.call((1, 1), "load", ["stage a", files], 1, Handle)
    assert beside == [files] and len(sent) < 1000
    assert envelope.opened(sent, beside) == ((1, 1), "load", ["stage a", files], 1)
    assert envelope.result(files) is files
