"""Teachers, data and purposes with what the clauses say of them, and where that stands."""

from datetime import date
from pathlib import Path

import pytest

from kdmesh.licences.clauses import PURPOSES
from kdmesh.licences.judging import Source, Student, judge
from kdmesh.licences.names import named
from kdmesh.licences.table import TERMS

TALKER = Student(language_model=True)
SORTER = Student(language_model=False)
LLAMA = Student(language_model=True, family=frozenset({"LicenseRef-llama2"}))

MATRIX = [
    # student, licences of what it learns from, purpose, answer, the section it is from
    (TALKER, ["llama2"], "research", "against", "1.b.v"),
    (LLAMA, ["llama2"], "commercial", "clear", "1.b.v"),
    (SORTER, ["llama2"], "internal", "depends", "1.b.v"),
    (TALKER, ["llama3"], "commercial", "against", "1.b.v"),
    (TALKER, ["llama3.1"], "commercial", "clear", ""),
    (TALKER, ["llama3.2", "mit"], "redistribution", "clear", "first paragraph"),
    (TALKER, ["gemma"], "redistribution", "clear", ""),
    (TALKER, ["gemma", "cc-by-sa-4.0"], "redistribution", "against", "2(a)(1)(B)"),
    (TALKER, ["gemma", "cc-by-sa-4.0"], "research", "clear", "2(a)(1)(B)"),
    (SORTER, ["cc-by-nc-4.0"], "commercial", "against", "2(a)(1)(B)"),
    (SORTER, ["cc-by-nc-4.0"], "internal", "depends", "2(a)(1)(B)"),
    (SORTER, ["cc-by-nc-4.0"], "redistribution", "clear", "2(a)(1)(B)"),
    (SORTER, ["cc-by-sa-4.0", "cc-by-nc-sa-4.0"], "redistribution", "against", "2(a)(1)(B)"),
    (SORTER, ["apache-2.0", "cc-by-4.0"], "commercial", "clear", "2"),
    (SORTER, ["cc-by-nc-4.0 OR mit"], "commercial", "clear", "first paragraph"),
    (SORTER, ["cc-by-nc-4.0 AND mit"], "commercial", "against", "2(a)(1)(B)"),
    (TALKER, ["Tongyi Qianwen RESEARCH LICENSE AGREEMENT"], "research", "against", "4.b"),
    (SORTER, ["Tongyi Qianwen RESEARCH LICENSE AGREEMENT"], "commercial", "against", "1.i, 2.a"),
    (SORTER, ["openai services agreement"], "internal", "clear", "3.3(e), 17 (Permitted Exception)"),
    (SORTER, ["openai services agreement"], "commercial", "depends", "3.3(e), 17 (Permitted Exception)"),
    (TALKER, ["openai services agreement"], "internal", "depends", "3.3(e), 17 (Permitted Exception)"),
    (TALKER, ["anthropic commercial terms of service"], "research", "depends", "D.4"),
    (TALKER, ["deepseek terms of use"], "commercial", "clear", "4.2"),
    (TALKER, ["deepseek license agreement"], "commercial", "clear", ""),
    (TALKER, ["other", "mit"], "research", "unknown", "first paragraph"),
    (TALKER, ["GPL-3.0-only"], "research", "unknown", ""),
    (TALKER, ["LicenseRef-Acme"], "commercial", "unknown", ""),
    (SORTER, ["other", "cc-by-nc-4.0"], "commercial", "against", "2(a)(1)(B)"),
]


def outcome(student, licences, purpose):
    return judge(student, [Source(f"t{i}", "teacher", named(one)) for i, one in enumerate(licences)], purpose)


@pytest.mark.parametrize(("student", "licences", "purpose", "answer", "section"), MATRIX)
def test_matrix(student, licences, purpose, answer, section):
    found = outcome(student, licences, purpose)
    assert found.answer == answer
    reasons = [one for finding in found.findings for one in finding.reasons]
    assert section in [one.clause.section for one in reasons] if section else reasons == []


@pytest.mark.parametrize(
    ("licences", "begins", "shows", "licence"),
    [
        (["mit"], "", ("its copyright and permission notice, with copies of it",), ""),
        (["llama3.1"], "Llama", ("Built with Llama",), ""),
        (["llama3", "llama4"], "Llama 3", ("Built with Meta Llama 3", "Built with Llama"), ""),
        (["cc-by-sa-4.0"], "", ("who made it, and a link to it and to its licence",), "CC-BY-SA-4.0"),
        (["llama3.1", "llama3.2"], "Llama", ("Built with Llama",), ""),
    ],
)
def test_what_whoever_gives_it_to_others_must_do(licences, begins, shows, licence):
    found = outcome(TALKER, licences, "redistribution")
    assert (found.begins, found.shows, found.licence) == (begins, shows, licence)


def test_two_that_ask_for_the_same_licence_each_cannot_both_have_it():
    found = outcome(TALKER, ["cc-by-sa-4.0", "cc-by-nc-sa-4.0"], "redistribution")
    assert [one.why for one in found.conflicts] == ["both ask for the same licence: CC-BY-SA-4.0 and CC-BY-NC-SA-4.0"]
    assert found.licence == "" and not outcome(TALKER, ["cc-by-sa-4.0"] * 2, "redistribution").conflicts


def test_share_alike_and_terms_that_must_be_passed_on():
    (conflict,) = outcome(TALKER, ["cc-by-sa-4.0", "gemma"], "redistribution").conflicts
    assert conflict.why.startswith("CC-BY-SA-4.0 lets no further terms")
    assert "LicenseRef-gemma must be passed on" in conflict.why


def test_nothing_that_it_learns_from_says_nothing():
    assert judge(SORTER, [], "commercial").answer == "clear"


def test_every_clause_stands_with_its_words_its_address_and_its_day():
    for key, terms in TERMS.items():
        assert named(key).expression == key
        assert terms.address.startswith("https://") and date.fromisoformat(terms.on) >= date(2026, 12, 1)
        assert terms.version and terms.clauses
        for clause in terms.clauses:
            assert len(clause.quote) > 30 and clause.section
            assert set(clause.answers) <= set(PURPOSES) and not (clause.duty and clause.answers)
            assert clause.begins in clause.quote


def test_the_page_lists_all_that_was_read():
    page = (Path(__file__).parents[2] / "docs" / "licences.md").read_text(encoding="utf-8")
    for key, terms in TERMS.items():
        assert f"`{key}`" in page and terms.address in page and terms.on in page
