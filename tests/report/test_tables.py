from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from kdmesh.report.paired import over_seeds
from kdmesh.report.tables import final_table, rounds_table, seeds_table, show, verdict_table


def node(role: str, test: float, validation: float) -> dict:
    return {
        "role": role,
        "parameters": 12345,
        "metrics": {"test": {"accuracy": test}, "validation": {"accuracy": validation}},
        "latency_ms": 0.1234,
        "forwards": {"made": 1437, "saved": 28740},
    }


def finished(turn: int, stage: str = "s") -> dict:
    metrics = {
        "agreement": 0.90 + turn / 100,
        "churn": None if turn == 1 else 0.05,
        "consensus": {"c": {"accuracy": 0.95}},
        "gain": {"party[0]": (turn - 1) / 100},
        "accuracy": {"party[0]": 0.88, "party[1]": 0.92},
    }
    return {"event": "round_finished", "stage": stage, "round": turn, "rounds": 3, "metrics": metrics}


@pytest.fixture
def summary() -> dict:
    return {
        "name": "council",
        "seed": 7,
        "agents": {
            "party[0]": {**node("student", 0.91, 0.90), "best_teacher": "t1"},
            "t1": node("teacher", 0.95, 0.97),
            "t2": node("teacher", 0.96, 0.94),
        },
        "consensus": {"c": {"sources": ["t1", "t2"], "oracle": False, "metrics": {"test": {"accuracy": 0.97}}}},
        "best_teacher": "t1",
        "controls": {
            "party[0]": {
                "alone": {"test": {"accuracy": 0.88}},
                "best_teacher": {"teacher": "t1", "test": {"accuracy": 0.92}},
            }
        },
        "rounds": [finished(turn) for turn in (1, 2, 3)],
    }


def lines(*tables, width: int | None = 200) -> list[str]:
    stream = io.StringIO()
    show(stream, *tables, width=width)
    return stream.getvalue().splitlines()


def row(name: str, found: list[str]) -> list[str]:
    return next(line.split() for line in found if line.split()[:1] == [name])


def test_everything_stands_side_by_side(summary):
    found = lines(final_table(summary))
    assert found[0] == "council, seed 7"
    names = [line.split()[0] for line in found if line.split()[:1] and line.split()[0] in ("c", "t1", "t2", "party[0]")]
    assert names == ["c", "t1", "t2", "party[0]"]
    assert row("c", found) == ["c", "consensus", "0.9700"]
    costs = ["0.123", "1,437", "28,740"]
    assert row("t2", found) == ["t2", "teacher", "12,345", "0.9600", "0.9400", *costs]
    student = ["12,345", "0.9100", "0.9000", "+0.0200", "+0.0300", "-0.0100"]
    assert row("party[0]", found) == ["party[0]", "student", *student, *costs]


def test_the_best_teacher_is_marked_by_validation_and_not_by_test(summary):
    found = lines(final_table(summary))
    assert row("t1", found)[:3] == ["t1", "teacher", "*"] and "*" not in row("t2", found)
    assert found[-1] == "* the best by validation of a student's own teachers"


def test_what_was_not_measured_has_no_column(summary):
    del summary["controls"], summary["rounds"]
    for agent in summary["agents"].values():
        del agent["forwards"]
    text = "\n".join(lines(final_table(summary)))
    assert "control" not in text and "round" not in text and "forwards" not in text and "latency" in text


def test_an_oracle_says_so(summary):
    summary["consensus"]["c"]["oracle"] = True
    found = lines(final_table(summary))
    assert "consensus, oracle" in "\n".join(found) and found[-1].startswith("oracle: the rule reads the labels")


def test_rounds_are_rows(summary):
    found = lines(rounds_table(summary["rounds"]))
    assert row("1", found) == ["1", "0.9100", "0.9500", "0.9000", "+0.0000"]  # no churn yet
    assert row("3", found) == ["3", "0.9300", "0.0500", "0.9500", "0.9000", "+0.0200"]
    assert "stage" not in "\n".join(found)
    assert "stage" in "\n".join(lines(rounds_table([finished(1), finished(1, "other")])))


def test_seeds_show_accuracies_and_paired_differences(summary):
    other = {**summary, "seed": 8, "agents": {**summary["agents"], "party[0]": node("student", 0.93, 0.9)}}
    found = lines(seeds_table(over_seeds([summary, other])))
    assert found[0] == "2 seeds"
    assert row("party[0]", found) == ["party[0]", "student,", "test", "accuracy", "0.9200", "0.1271", "2"]
    control = next(line.split() for line in found if "control best teacher" in line)
    assert control == ["party[0]", "minus", "control", "best", "teacher", "+0.0000", "0.1271", "1", "0", "2"]


def test_one_seed_has_no_interval(summary):
    found = lines(seeds_table(over_seeds([summary])))
    assert row("c", found) == ["c", "consensus,", "test", "accuracy", "0.9700", "1"]


@pytest.mark.parametrize(
    "table", [final_table({}), rounds_table([]), rounds_table([{}]), final_table({"rounds": None})]
)
def test_what_is_missing_breaks_nothing(table):
    assert all("None" not in line for line in lines(table))


@pytest.mark.parametrize("width", [5, 30, 60, 80, 100, 160, None])
def test_whole_columns_fit_and_those_that_do_not_stand_below(summary, width):
    tables = final_table(summary), rounds_table(summary["rounds"]), seeds_table(over_seeds([summary, summary]))
    found = lines(*tables, verdict_table(over_seeds([summary, summary])), width=width)
    assert max(map(len, found)) <= (width or 80)
    if width is None or width >= 30:
        for figure in ("0.9700", "12,345", "28,740", "0.123", "+0.0300", "-0.0100"):
            assert any(figure in line.split() for line in found), f"{figure} is whole, and not left out"
    assert sum(line.split()[:3] == ["t1", "teacher", "*"] for line in found) == (width != 5)


def test_names_may_be_long_and_wide(summary):
    long, wide = "a" * 64, "教師" * 32
    summary["agents"] = {long: node("student", 0.91, 0.90), wide: node("teacher", 0.95, 0.97)}
    summary["controls"] = {long: summary["controls"]["party[0]"]}
    found = lines(final_table(summary), verdict_table(over_seeds([summary])), width=80)
    assert max(map(cell_len, found)) <= 80
    joined = "".join(line.split()[0] for line in found if line.split() and set(line.split()[0]) <= set("教師"))
    assert joined.count("教師") % 32 == 0 and joined, "nothing of a name is lost"


def test_a_pipe_gets_plain_text_of_80_columns_in_full(summary, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    found = lines(final_table(summary), width=None)
    text = "\n".join(found)
    assert "\x1b" not in text and "forwards" in text and not any(line.endswith(" ") for line in found)
    assert 60 < max(map(len, found)) <= 80


def test_a_moved_data_seed_and_what_qualifies_the_figures_stand_in_every_table(summary):
    moved = {**summary, "data_seed": 3, "notes": ["what t was trained on is not known"]}
    assert lines(final_table(moved))[0] == "council, seed 7, data seed 3"
    for found in (lines(final_table(moved)), lines(seeds_table(over_seeds([moved, {**moved, "seed": 8}])))):
        assert "note: what t was trained on is not known" in found
    assert "data seed 3" in " ".join(lines(seeds_table(over_seeds([moved]))))


def test_runs_of_different_data_seeds_are_not_paired(summary):
    with pytest.raises(ValueError, match="different data seeds"):
        over_seeds([summary, {**summary, "data_seed": 3}])


def test_the_controls_own_figures_follow_their_student(summary):
    found = lines(final_table(summary))
    at = next(number for number, line in enumerate(found) if line.split()[:1] == ["party[0]"])
    assert found[at + 1].split() == ["party[0],", "alone", "0.8800"]
    assert found[at + 2].split() == ["party[0],", "best", "teacher", "only", "0.9200"]
    seeds = lines(seeds_table(over_seeds([summary, summary])))
    assert any(line.split()[:5] == ["party[0]", "alone,", "test", "accuracy", "0.8800"] for line in seeds)


def test_verdicts_are_lines_of_80_columns(summary):
    other = {**summary, "seed": 8, "agents": {**summary["agents"], "party[0]": node("student", 0.912, 0.9)}}
    found = lines(verdict_table(over_seeds([summary, other])), width=80)
    better = next(line.split() for line in found if "alone" in line)
    assert better[:3] == ["party[0]", "alone", "better"] and better[-1] == "2"
    assert better[3:7] == ["+0.0310", "+0.0183", "to", "+0.0437"]
    (taught,) = (line for line in found if "best teacher" in line)
    assert taught.split()[0] == "party[0]" and "no difference shown" in taught
    assert max(map(len, found)) <= 80 and "higher is better" in " ".join(found)


def test_one_seed_gives_no_verdict_and_says_so(summary):
    found = " ".join(lines(verdict_table(over_seeds([summary]))))
    assert found.count("no verdict") == 3 and "One seed gives no verdict" in found


def test_language_models_are_shown_by_bits(summary):
    for one in (summary["agents"]["party[0]"], summary["agents"]["t1"]):
        one["metrics"] = {"test": {"accuracy": 0.5, "bits_per_character": 3.25}}
    found = "\n".join(lines(final_table({**summary, "task": "language_modelling", "controls": {}})))
    assert "3.2500" in found and "character" in found and "lower is better" in found
