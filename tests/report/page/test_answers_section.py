from __future__ import annotations

import numpy as np

from kdmesh.report import answers
from kdmesh.report.page.blocks import Page
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import html


def section(page: Page):
    return next(one for one in page.sections if one.id == "answers")


def block(page: Page, title: str):
    return next(one for one in section(page).blocks if getattr(one, "title", "").startswith(title))


def test_agreement_confusion_and_gains_are_of_the_recorded_answers(runs):
    found, page = answers.read(runs["small"]), page_of(runs["small"])
    s, t1, labels = found.agents["s"].decision, found.agents["t1"].decision, found.labels
    agreement = block(page, "Agreement")
    at = {name: number for number, name in enumerate(agreement.rows)}
    assert agreement.values[at["s"]][at["t1"]] == (s == t1).mean() and agreement.values[at["s"]][at["s"]] == 1
    confusion = np.array(block(page, "s: confusion").values)
    assert confusion.sum() == len(labels) and np.trace(confusion) == (s == labels).sum()
    gains = block(page, "Gains by class")
    best = found.agents[gains.rows[0].removeprefix("s minus ")].decision
    of = labels == int(gains.columns[0])
    assert gains.values[0][0] == (s[of] == labels[of]).mean() - (best[of] == labels[of]).mean()


def test_reliability_is_the_share_right_of_each_bin(runs):
    found, chart = answers.read(runs["small"]), block(page_of(runs["small"]), "Reliability")
    s, points = found.agents["s"], next(one.points for one in chart.series if one.name == "s")
    for confidence, right, *_ in points:
        within = (s.confidence * 10).astype(int).clip(0, 9) == int(confidence * 10)
        assert right == (s.decision == found.labels)[within].mean()
    assert points


def test_answers_without_a_confidence_are_in_no_bin(runs, monkeypatch):
    found = answers.read(runs["small"])
    whole = block(page_of(runs["small"]), "Reliability")
    found.agents["s"].confidence[:] = np.nan
    monkeypatch.setattr(answers, "read", lambda folder: found)
    chart = block(page_of(runs["small"]), "Reliability")
    assert [one.points for one in chart.series if one.name == "s"] == [[]]
    assert [one for one in chart.series if one.name != "s"] == [one for one in whole.series if one.name != "s"]


def test_samples_where_teachers_differ(runs):
    found, page = answers.read(runs["small"]), page_of(runs["small"])
    differ = found.agents["t1"].decision != found.agents["t2"].decision
    table = block(page, "Where teachers differ")
    assert {int(row[0]) for row in table.rows} <= set(found.ids[differ].tolist())
    assert len(table.rows) == min(30, differ.sum())


def test_without_answers_or_with_damaged_ones_it_is_said(runs):
    path = runs["small"] / "answers.safetensors"
    path.write_bytes(b"no")
    assert "cannot be read" in html(page_of(runs["small"]))
    path.unlink()
    assert "did not record its answers" in html(page_of(runs["small"]))
