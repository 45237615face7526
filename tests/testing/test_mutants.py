"""The kit catches wrong plugins and leaves right ones alone; `python -m tests.testing.mutants` prints the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants.mutant import Mutant
from mutants.originals import ORIGINALS
from mutants.running import judged, source
from mutants.table import KINDS

GUIDE = Path(__file__).parents[2] / "docs" / "plugins" / "testing.md"


def test_there_are_enough_of_each_kind():
    assert len(KINDS) == 18 and all(len(rows) >= 12 for rows in KINDS.values())
    guide = GUIDE.read_text(encoding="utf-8")
    assert all(f"| {kind} | {len(rows)} |" in guide for kind, rows in KINDS.items()), "the guide's table is of others"
    assert {mutant.of for rows in KINDS.values() for mutant in rows} == {*ORIGINALS}


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_another_text_that_can_be_compiled(kind):
    seen = set()
    for mutant in KINDS[kind]:
        text = source(mutant)
        compile(text, mutant.says, "exec")
        assert text != source(Mutant(mutant.of, "")) or mutant.traits, f"{mutant.of}: {mutant.says} changes nothing"
        assert mutant.says not in {says for of, says in seen if of == mutant.of}
        seen.add((mutant.of, mutant.says))


def test_one_of_each_kind_is_caught_and_its_original_is_not():
    one = {kind: rows[0] for kind, rows in KINDS.items()}
    for kind, verdict in zip(one, judged(one.values()), strict=True):
        assert verdict.caught, f"{kind}: {verdict.mutant.of}, {verdict.mutant.says}"
    for verdict in judged(
        [Mutant(name, "") for name in ("objectives.Squares", "rules.Certain", "signals.Top")], every=True
    ):
        assert not verdict.caught, f"{verdict.mutant.of}: {verdict.check} {verdict.words}"


@pytest.mark.slow
def test_most_are_caught_without_a_false_alarm():
    alarms = [
        f"{one.mutant.of}: {one.check} {one.words}"
        for one in judged([Mutant(name, "") for name in ORIGINALS], every=True)
        if one.caught
    ]
    assert not alarms
    wrong = judged([mutant for rows in KINDS.values() for mutant in rows])
    missed = [f"{one.mutant.of}: {one.mutant.says}" for one in wrong if not one.caught]
    assert len(missed) <= 0.15 * len(wrong), missed
