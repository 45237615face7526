"""Built-in recognisers in texts as people write them: other widths, blanks and hyphens, and groups beside numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.builtin.recognisers.offers import RECOGNISERS
from kdmesh.builtin.recognisers.words import Words
from kdmesh.contracts.recogniser import Recogniser
from kdmesh.personal.changes import Pseudonyms
from kdmesh.privacy.keys import create

WIDE = {one: one + 0xFEE0 for one in range(0x21, 0x7F)}
BUILT_IN: dict[str, Recogniser] = {one.name: one.make({}) for one in RECOGNISERS if one.finds}
STRANGE = st.text(
    alphabet="09aZ @.:-/+\u017f\u0131\u212a\u00b2\u0660\uff11\uff20\u200b\u00ad\u2011\u00a0\u0301", max_size=40
)
FORMS = ["de12", "DE89 3704 ", "4111 1111 1111 ", "+49 30 ", "ann@example.", "10.0.0.", "1 May ", "CA 9", "aged 9", ""]


def said(name: str, text: str) -> list[str]:
    """What a recogniser finds in a text."""
    return [text[one.start : one.end] for one in BUILT_IN[name].find([text])[0]]


@given(st.sampled_from(FORMS), STRANGE)
def test_no_text_makes_a_recogniser_raise_and_what_it_finds_is_of_the_text(form: str, strange: str) -> None:
    for one in BUILT_IN.values():
        for found in one.find([form + strange])[0]:
            assert 0 <= found.start < found.end <= len(form + strange)


@pytest.mark.parametrize("sign", ["\u017f", "\u0131", "\u212a"])
def test_letters_that_only_case_makes_ascii_are_of_no_account_number(sign: str) -> None:
    assert said("iban", f"de12aaaaaaaaaaa{sign}") == []


@pytest.mark.parametrize(
    ("name", "number"),
    [("credit_card", "4111 1111 1111 1111"), ("us_ssn", "219-09-9999"), ("phone", "+49 30-1234567"),
     ("email", "ann@example.org"), ("iban", "GB82 WEST 1234 5698 7654 32"), ("ip_address", "10.0.0.1")],
)  # fmt: skip
def test_widths_blanks_and_hyphens_of_other_scripts_hide_nothing(name: str, number: str) -> None:
    hidden = [number.translate(WIDE), number.replace(" ", "\u00a0"), number.replace("-", "\u2011")]
    hidden += [number.replace(" ", "\u202f").replace("-", "\u2013")]
    for one in hidden:
        assert said(name, f"\u00e9 {one}, so") == [one]
    joined = f"{number[:3]}\u200b{number[3:7]}\u00ad{number[7:]}"
    text = f"it is {joined}."
    found = BUILT_IN[name].find([text])[0]
    assert (min(one.start for one in found), max(one.end for one in found)) == (6, 6 + len(joined))
    assert number in said(name, f"it is\u200b {number}")


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("credit_card", "card 4111 1111 1111 1111 12/27", ["4111 1111 1111 1111"]),
        ("credit_card", "4111-1111-1111-1111 123", ["4111-1111-1111-1111"]),
        ("credit_card", "2 4111111111111111", ["4111111111111111"]),
        ("credit_card", "4111 1111 1111 1112 12", []),
        ("credit_card", "7 41 11 11 11 11 11 11 11", []),
        ("iban", "BE68 5390 0754 7034 was paid", ["BE68 5390 0754 7034"]),
        ("iban", "BE68 5390 0754 7034 BE68 5390 0754 7034", ["BE68 5390 0754 7034"] * 2),
        ("iban", "BE68 5390 0754 7035 was paid", []),
    ],
)
def test_groups_beside_a_number_do_not_hide_it(name: str, text: str, found: list[str]) -> None:
    assert said(name, text) == found


def test_words_are_found_however_their_accents_are_encoded() -> None:
    one, two = "Jos\u00e9", "Jose\u0301"
    for word in (one, two):
        made = Words([word], None, "PERSON", True)
        assert [[(found.start, found.end) for found in own] for own in made.find([one, two])] == [[(0, 4)], [(0, 5)]]


def test_pseudonyms_are_one_where_values_are_and_several_where_marks_tell_them_apart(tmp_path: Path) -> None:
    create(tmp_path / "key")
    named = Pseudonyms(tmp_path / "key")
    same = [("PHONE", "+1 202-555-0100", "+12025550100"), ("EMAIL", "Ann@example.org", "ann@EXAMPLE.org"),
            ("PERSON", "Jos\u00e9  Roe", "jose\u0301 roe"), ("IBAN", "GB82 WEST 1234", "gb82west1234"),
            ("EMAIL", "\uff21nn@example.org", "an\u200bn@example.org"),
            ("CREDIT_CARD", "4111\u00a01111", "4111-1111")]  # fmt: skip
    for kind, one, other in same:
        assert named(kind, one) == named(kind, other)
        assert re.fullmatch(rf"\[{kind}-[0-9a-f]{{8}}\]", named(kind, one))
    apart = [("IP_ADDRESS", "1.12.1.1", "11.2.1.1"), ("DATE", "1/12/24", "11/2/24"), ("EMAIL", "a.b@c.org", "ab@c.org")]
    for kind, one, other in apart:
        assert named(kind, one) != named(kind, other)
    assert named("ODD", "\ud800") != named("ODD", "\ud801"), "halves of characters have names too"
