"""Parts of a text are replaced, whatever overlaps; tags stay on their words, and nothing of a part is left."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.contracts.recogniser import Entity, Recogniser
from kdmesh.personal.changes import changed, redacted
from kdmesh.personal.entities import Finder, Part, Unfit, joined

WORDS = st.text(alphabet="ab é漢.", min_size=1, max_size=40)


def spans(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Any parts of a text."""
    one = st.tuples(st.integers(0, size - 1), st.integers(1, size)).filter(lambda pair: pair[0] < pair[1])
    return st.lists(one, max_size=6)


def apart(found: list[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """Those that overlap none before them, with a name each."""
    made: list[tuple[int, int, str]] = []
    for number, (start, end) in enumerate(sorted(found)):
        if not made or start >= made[-1][1]:
            made.append((start, end, f"T{number}"))
    return made


@given(st.data())
def test_what_overlaps_is_one_part_and_nothing_of_it_is_left(data: st.DataObject) -> None:
    text = data.draw(WORDS)
    found = data.draw(spans(len(text)))
    parts = joined([(Entity(start, end, "ab"[number % 2]), "rule") for number, (start, end) in enumerate(found)])
    covered = {at for start, end in found for at in range(start, end)}
    assert covered == {at for one in parts for at in range(one.start, one.end)}
    assert all(one.end <= two.start for one, two in pairwise(parts))
    made = changed(text, parts, lambda kind, value: "#")
    left = "".join(letter for at, letter in enumerate(text) if at not in covered)
    assert made.text.replace("#", "") == left and made.text.count("#") == len(parts)
    for (begins, ends), part in zip(made.new, parts, strict=True):
        assert made.text[begins:ends] == "#" and part.start <= part.end


@given(st.data())
def test_tags_stay_on_their_words(data: st.DataObject) -> None:
    text = data.draw(WORDS)
    tags = apart(data.draw(spans(len(text))))
    parts = joined([(Entity(*one, "K"), "rule") for one in data.draw(spans(len(text)))])
    made = changed(text, parts, redacted)
    moved = made.tags(tags)
    assert all(0 <= start < end <= len(made.text) for start, end, _ in moved)
    assert all(one[1] <= two[0] for one, two in pairwise(moved))
    by_name = {name: made.text[start:end] for start, end, name in moved}
    for start, end, name in tags:
        touched = [one for one in parts if one.start < end and start < one.end]
        if not touched:
            assert by_name[name] == text[start:end]
        elif len(touched) == 1 and touched[0].start <= start and end <= touched[0].end and name in by_name:
            assert by_name[name] == "[K]"


class Given(Recogniser):
    """Gives what it is told to."""

    def __init__(self, found: object) -> None:
        self._found = found

    def find(self, texts):  # type: ignore[no-untyped-def]
        return self._found


@pytest.mark.parametrize(
    "found",
    [None, [], [[], []], [None], [[(0, 9, "A")]], [[(1, 1, "A")]], [[(-1, 1, "A")]], [[(0, 1, "")]], [[(0, 1)]],
     [[("0", 1, "A")]], [[(0.0, 1, "A")]], "x", [[(2, 1, "A")]]],
)  # fmt: skip
def test_what_is_no_entity_of_a_text_is_refused(found: object) -> None:
    with pytest.raises(Unfit, match="mine gave"):
        Finder((("mine", Given(found)),)).find(["abc"])


def test_allowed_texts_and_other_kinds_are_let_stand() -> None:
    mine = Given([[Entity(0, 3, "A"), Entity(4, 7, "B")]])
    assert Finder((("mine", mine),), frozenset({"abc"})).find(["ABC def"]) == [[Part(4, 7, "B", "mine")]]
    assert Finder((("mine", mine),), kinds=frozenset("A")).find(["ABC def"]) == [[Part(0, 3, "A", "mine")]]


def test_the_kind_of_a_part_is_of_the_longest_in_it() -> None:
    found = [(Entity(0, 3, "SHORT"), "one"), (Entity(2, 9, "LONG"), "two"), (Entity(8, 10, "LAST"), "three")]
    assert joined(found) == joined(found[::-1]) == [Part(0, 10, "LONG", "two")]
