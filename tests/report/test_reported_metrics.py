"""Metrics that a mesh names stand in its tables: numbers also over seeds, lists by where they are."""

from __future__ import annotations

import io
from types import SimpleNamespace

from kdmesh.cli.running import show as shown
from kdmesh.report.paired import over_seeds
from kdmesh.report.tables import final_table, seeds_table


def summary(seed: int, balanced: float | None) -> dict:
    """A run of one student, whose mesh names two metrics."""
    test = {"accuracy": 0.9, "balanced_accuracy": balanced, "confusion_matrix": [[1, 0], [0, 1]]}
    node = {"role": "student", "metrics": {"test": test}}
    return {
        "name": "m", "seed": seed, "reported": ["balanced_accuracy"], "agents": {"s": node}, "consensus": {},
        "rounds": [], "wall_s": 1.5,
    }  # fmt: skip


def test_the_table_of_seeds_has_a_row_for_each():
    found = over_seeds([summary(0, 0.5), summary(1, 0.7)])
    assert found["reported"]["s"]["balanced_accuracy"]["mean"] == 0.6
    rows = [line.split() for line in seeds_table(found).lines(80)]
    assert ["s", "student,", "test", "balanced", "accuracy", "0.6000", "1.2706", "2"] in rows


def test_what_was_never_defined_has_no_row():
    assert over_seeds([summary(0, None), summary(1, None)])["reported"] == {"s": {}}
    assert not over_seeds([{**summary(0, 0.5), "reported": []}])["reported"]


def test_the_table_says_where_lists_are():
    told = summary(0, 0.5)
    told["agents"]["s"]["metrics"]["test"]["texts"] = [{"prompt": "1+1=", "text": "2"}]  # samples are no metric
    assert "confusion_matrix: lists, for every agent in results.json" in final_table(told).lines(80)


def test_the_last_line_says_what_its_time_is_of():
    out, table = io.StringIO(), {"over_seeds": {}, "controls": True}
    shown(out, False, SimpleNamespace(summaries={0: summary(0, 0.5)}, table=table, place="runs/m/1", unpaged=""))
    assert out.getvalue().splitlines()[-1] == "runs/m/1  (training and tests without controls: 1.5 s)"
