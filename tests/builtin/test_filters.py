"""What filters keep, by hand-made texts."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from kdmesh.errors import MeshError
from kdmesh.filters import Agreement, Answer, Dedup, Length, Pattern, Perplexity, WrittenText
from kdmesh.text.answers import extracted, number, pattern
from kdmesh.text.near import Known, normalised, resemblance, shingles


def texts(*said: str, sample: int = 0, **more: object) -> list[WrittenText]:
    """Answers to one prompt."""
    given = {"prompt": "?", "tokens": 1, "ended": True, **more}
    return [WrittenText(sample=sample, draw=at, text=text, **given) for at, text in enumerate(said)]


def test_length_counts_tokens_and_who_ended() -> None:
    some = [
        WrittenText(0, at, "?", "", tokens, ended)
        for at, (tokens, ended) in enumerate([(0, True), (3, True), (4, False)])
    ]
    assert Length(1, None, False).keep(some) == [False, True, True]
    assert Length(0, 3, False).keep(some) == [True, True, False]
    assert Length(0, None, True).keep(some) == [True, True, False]


def test_exact_duplicates_are_of_words_and_near_ones_of_runs_of_words() -> None:
    long = " ".join(f"w{n}" for n in range(40))
    changed = long.replace("w39", "other")  # 35 of 36 runs of five are the same: 35 / 37 of all
    some = texts("It is  7.", "it is 7 .", long, changed, "it is 8.")
    assert Dedup("exact", 0.8, False).keep(some) == [True, False, True, True, True]
    assert Dedup("near", 0.8, False).keep(some) == [True, False, True, False, True]
    assert Dedup("near", 0.95, False).keep(some) == [True, False, True, True, True]
    assert resemblance(shingles(normalised(long)), shingles(normalised(changed))) == 35 / 37
    two = texts("the same") + texts("the same", sample=1)
    assert Dedup("exact", 0.8, False).keep(two) == [True, True]
    assert Dedup("exact", 0.8, True).keep(two) == [True, False]


@pytest.mark.parametrize("alike", [0.2, 0.5, 0.8])
def test_known_texts_are_found_as_comparing_all_finds_them(alike: float) -> None:
    import random

    draw = random.Random(3)
    said = [" ".join(draw.choice("ab") for _ in range(draw.randint(1, 12))) for _ in range(120)]
    known = Known(True, alike)
    for at, text in enumerate(said):
        own = shingles(normalised(text))
        found = any(
            normalised(one) == normalised(text) or resemblance(own, shingles(normalised(one))) >= alike
            for one in said[:at]
        )
        assert (text in known) == found, text
        known.add(text)


def test_pattern() -> None:
    some = texts("yes, 12", "no", "no 3")
    assert Pattern(r"\d", None).keep(some) == [True, False, True]
    assert Pattern(r"\d", "no").keep(some) == [True, False, False]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,234.50 kg", "1234.5"), ("from 3 to -4", "-4"), ("1e3", "1000"), (".5", "0.5"), ("12,34", "34"), ("x", None),
     ("+-", None), ("7.", "7")],
)  # fmt: skip
def test_numbers_are_exact(text: str, value: str | None) -> None:
    assert number(text) == (None if value is None else Decimal(value))


def test_the_last_match_is_the_answer() -> None:
    assert extracted(pattern("#### (.*)"), "#### 3 #### 4 ") == "3 #### 4"
    assert extracted(pattern(r"#### (\S+)"), "#### 3 #### 4 ") == "4"
    assert extracted(pattern(r"\d"), "1 2") == "2"
    assert extracted(pattern("b"), "a") is None and extracted(None, "  ") is None


def test_answers_equal_a_column_or_what_the_data_answer() -> None:
    some = texts("so #### 4", "so #### 4.0", "4", "#### 5", columns={"final": "4"}, given="2 + 2 #### 4")
    assert Answer(r"#### (\S+)", "final", False).keep(some) == [True, False, False, False]
    assert Answer(r"#### (\S+)", None, True).keep(some) == [True, True, False, False]
    assert Answer(None, "final", False).keep(some) == [False, False, True, False]
    with pytest.raises(MeshError, match="no column 'fina'") as caught:
        Answer(None, "fina", False).setup(["final"])
    assert caught.value.where == "column" and "without `column` it is what the data answer" in caught.value.instead
    with pytest.raises(ValueError, match="do not say what the answer is"):
        Answer(None, None, False).keep(texts("4"))


def test_perplexity_is_of_the_mean_loss() -> None:
    some = [one for loss in (0.0, math.log(5), math.log(5.1), math.nan) for one in texts("x", loss=loss)]
    assert Perplexity(1.0, 5.0).keep(some) == [True, True, False, False]
    assert Perplexity(4.9, None).keep(some) == [False, True, True, False]


def test_agreement_is_of_the_most_and_of_no_tie() -> None:
    some = texts("a 1", "b 1.0", "c 2", "none") + texts("1", "2", sample=1) + texts("3", "3", "3", "4", sample=2)
    assert Agreement(r"\S+$", 0.5, True).keep(some) == [True, True, False, False, False, False, True, True, True, False]
    assert Agreement(r"\S+$", 0.6, True).keep(some)[:4] == [False] * 4
    assert Agreement(r"\S+$", 0.5, False).keep(some)[:4] == [False] * 4
