from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.spec.yaml12 import ENTRIES, dump, load

WORDS = st.text(
    alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\ufffe\uffff")
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | WORDS
    | st.from_regex(r"[-+.0-9e_:xo]{1,6}"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("", None),
        ("~", None),
        ("'1e-3'", "1e-3"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = load(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("sign", ["\x85", "\u2028", "\u2029", "\ufeff", "\r", "\t", "\x00"])
@pytest.mark.parametrize("text", ["a{}", "{}a", "a {} b", "0{}", "{}"])
def test_rare_signs_are_dumped_so_that_they_read_back(text, sign):
    assert load(dump({"x": text.format(sign)})) == {"x": text.format(sign)}


@given(PLAIN)
def test_what_is_dumped_reads_back(data):
    assert load(dump(data)) == data


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1", "'a' stands twice, first in line 1"),
        ("a: [1\nb: 2]", "line 1, column 4", "`[` is opened here"),
        ("a:\n\t- b", "line 2, column 1", "a tab"),
        ("a: *b", "line 1, column 4", "the alias `*b`"),
        ("a: 1\n---\nb: 2", "line 2, column 1", "a second document"),
        ("a: !!python/name:os.system x", "line 1, column 4", "the tag `!!python/name:os.system`"),
    ],
)
def test_errors_name_line_and_column(text, where, what):
    with pytest.raises(MeshError) as caught:
        load(text, file="mesh.yaml")
    assert caught.value.where == where
    assert what in caught.value.what
    assert caught.value.file == "mesh.yaml"


def test_anchors_and_merges_are_read():
    data = load("a: &x {lr: 1, wd: 2}\nb: *x\nc: {<<: *x, lr: 3}")
    assert data["b"] == {"lr": 1, "wd": 2}
    assert data["c"] == {"lr": 3, "wd": 2}


@pytest.mark.parametrize("text", ["a: &x [*x]", "[" * 5000, "\x00", "!!int x"])
def test_hostile_text_is_a_mesh_error(text):
    with pytest.raises(MeshError):
        load(text)


def test_aliases_cannot_blow_up():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(8)]
    with pytest.raises(MeshError, match=f"more than {ENTRIES:,} values"):
        load("\n".join(lines))
