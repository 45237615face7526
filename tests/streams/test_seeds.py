from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.streams.seeds import mix

parts = st.lists(st.one_of(st.integers(), st.text(st.characters(codec="utf-8"))), max_size=4)


def test_the_seed_is_the_same_in_every_process():
    code = "from kdmesh.streams.seeds import mix; print(mix(7, 'order', 'train', -1))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == mix(7, "order", "train", -1) == 7445764342255439818


@given(parts, parts)
def test_different_parts_differ_and_fit_in_63_bits(one, two):
    assert 0 <= mix(*one) < 2**63
    assert (mix(*one) == mix(*two)) == (one == two)


def test_type_order_and_borders_of_parts_matter():
    assert len({mix("ab", "c"), mix("a", "bc"), mix("abc"), mix("c", "ab"), mix("1"), mix(1)}) == 6


def test_a_fraction_is_no_part():
    with pytest.raises(TypeError):
        mix(0.5)
