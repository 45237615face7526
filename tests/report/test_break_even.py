"""After how many requests a student has repaid its distillation: by hand, and in words where there is no number."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from page_text import Read

from kdmesh.contracts.run_files import COSTS, LATENCY
from kdmesh.report import latency, run_folder
from kdmesh.report.grid import show
from kdmesh.report.latency import NEVER, break_even
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import html

SPENT = {"t1": (3.0, 5.0), "t2": (2.0, 7.0), "s": (0.0, 11.0)}  # seconds of teaching and training
Row = dict[str, Any]


def measured(**p50: float) -> Row:
    """Latencies: medians at batch 1 in ms; 64 samples take eight times as long."""
    agents = {}
    for name, ms in p50.items():
        one = {"calls": 200, "p50_ms": ms, "p95_ms": 2 * ms, "samples_per_s": 1000 / ms}
        agents[name] = {"threads": 1, "samples": 64, "batches": {"1": one, "64": {**one, "p50_ms": 8 * ms}}}
    return {"machine": {"torch": "2", "cpu": "A", "cpus": 1}, "agents": agents, "failed": {}, "inputs": {}}


class Part:
    """A run's folder with made-up costs, of which a test changes what it is about."""

    def __init__(self, path: Path) -> None:
        self.path = path
        nodes = json.loads((path / "summary.json").read_text())["consensus"]
        agents = {name: {"teaching_s": taught, "training_s": trained} for name, (taught, trained) in SPENT.items()}
        combined = {name: {"combining_s": 0.5} for name in nodes}
        self.edit(COSTS, lambda costs: costs.update(agents=agents, consensus=combined))
        self.edit("summary.json", lambda summary: summary["agents"]["s"].update(best_teacher="t1"))

    def edit(self, name: str, change: Any) -> None:
        found = json.loads((self.path / name).read_text())
        change(found)
        (self.path / name).write_text(json.dumps(found))

    def even(self, latencies: Row) -> Row:
        record: Row = break_even(run_folder.read(self.path), latencies)["students"]["s"]
        return record


@pytest.fixture
def part(runs) -> Part:
    return Part(runs["small"])


def test_what_is_counted_over_what_is_saved(part):
    found = part.even(measured(t1=3.0, t2=9.0, s=1.0))
    assert found["replaces"] == "t1" and found["elsewhere"] == []
    # its own training, both teachers' forwards, the consensus, and the training of the teacher that t1 does not need
    expected = {"training": 11.0, "teaching": 5.0, "combining": 0.5, "training_teachers": 7.0, "total": 23.5}
    assert found["seconds"] == expected
    one, many = found["batches"]["1"], found["batches"]["64"]
    assert one["saves_s"] == pytest.approx(0.002) and one["requests"] == pytest.approx(23.5 / 0.002)
    assert many["saves_s"] == pytest.approx(0.016 / 64) and many["requests"] == pytest.approx(23.5 * 64 / 0.016)
    assert one["word"] == many["word"] == ""


def test_a_student_that_is_no_faster_never_repays(part):
    latencies = measured(t1=1.0, t2=9.0, s=1.0)
    latencies["agents"]["s"]["batches"]["64"]["p50_ms"] = 4.0
    found = part.even(latencies)["batches"]
    assert found["1"] == {"saves_s": 0.0, "requests": None, "word": NEVER}
    assert found["64"]["requests"] == pytest.approx(23.5 * 64 / 0.004)


def test_seconds_of_several_threads_count_for_each(part):
    part.edit("manifest.json", lambda known: known["mesh"]["agents"]["t2"].update(train={"threads": 4}))
    found = part.even(measured(t1=3.0, t2=9.0, s=1.0))
    assert found["seconds"] == {
        "training": 11.0, "teaching": 3 + 4 * 2, "combining": 0.5, "training_teachers": 4 * 7, "total": 50.5
    }  # fmt: skip
    part.edit("manifest.json", lambda known: known["mesh"]["agents"]["t1"].update(train={"threads": 2}))
    assert part.even(measured(t1=3.0, t2=9.0, s=1.0))["batches"]["1"]["saves_s"] == pytest.approx(0.005)


def test_of_unlike_devices_no_number_is_made(part):
    part.edit("manifest.json", lambda known: known["mesh"]["agents"]["t1"].update(train={"device": "cuda:0"}))
    found = part.even(measured(t1=3.0, t2=9.0, s=1.0))["batches"]["1"]
    assert found["requests"] is None and "s computes on cpu, t1 on cuda" in found["word"]


def test_teachers_trained_elsewhere_are_named(part):
    part.edit("summary.json", lambda summary: summary["agents"]["t2"].update(updates=0))
    part.edit(COSTS, lambda costs: costs["agents"]["t2"].update(training_s=0.0))
    found = part.even(measured(t1=3.0, t2=9.0, s=1.0))
    assert found["elsewhere"] == ["t2"] and found["seconds"]["total"] == 16.5
    (line,) = latency.elsewhere({"students": {"s": found}})
    assert line.startswith("s: not counted is the training of t2")


def test_weights_that_several_share_are_counted_as_their_owners(part):
    part.edit("manifest.json", lambda known: known["mesh"]["agents"]["s"].update(weights_of="t2"))
    assert part.even(measured(t1=3.0, t2=9.0, s=1.0))["seconds"]["training"] == 7.0


def test_an_assistants_teachers_are_needed_by_the_assistant(part):
    """Of a chain t2 -> t1 -> s only what s adds counts: t1, which it replaces, needs t2."""
    part.edit("summary.json", lambda summary: summary["agents"]["s"].update(teachers=["t1"]))
    part.edit("summary.json", lambda summary: summary["agents"]["t1"].update(teachers=["t2"]))
    part.edit("summary.json", lambda summary: summary.update(consensus={}))
    found = part.even(measured(t1=3.0, t2=9.0, s=1.0))["seconds"]
    assert found == {"training": 11.0, "teaching": 3.0, "combining": 0.0, "training_teachers": 0, "total": 14.0}


@pytest.mark.parametrize("lacks", ["s", "t1"])
def test_without_a_latency_it_is_said_which(part, lacks):
    latencies = measured(t1=3.0, t2=9.0, s=1.0)
    del latencies["agents"][lacks]
    assert part.even(latencies)["batches"]["1"]["word"] == f"{lacks} was not measured"


def test_without_costs_it_is_said(part):
    (part.path / COSTS).unlink()
    found = part.even(measured(t1=3.0, t2=9.0, s=1.0))["batches"]["1"]
    assert found["requests"] is None and found["word"] == "what it cost was not recorded"


def test_the_page_has_the_figures_of_the_files(part):
    read = Read(html(page_of(part.path)))
    assert f"{latency.HOW} measures them" in "".join(read.text)
    (part.path / LATENCY).write_text(json.dumps(measured(t1=3.0, t2=9.0, s=1.0)))
    read = Read(html(page_of(part.path)))
    one = read.row("Break-even: requests until a student has repaid its distillation", "s")
    assert one["cost, s"] == 23.5 and one["batch 1: requests"] == pytest.approx(11750)
    assert one["batch 64: saves s an answer"] == pytest.approx(0.00025)
    assert read.row("Latency, each agent in a fresh process", "t2")["batch 64: p95 ms"] == 18.0
    said = "".join(read.text)
    assert latency.ASSUMED in said and latency.HOW not in said
    assert "1 ms an answer" in said and "Repaid after 11,750 requests of one sample, against t1." in said
    assert "against median latency, ms for one sample" in said  # and not against that within the run
    assert "against latency within the run" not in said


def test_the_page_says_never(part):
    (part.path / LATENCY).write_text(json.dumps(measured(t1=1.0, t2=9.0, s=2.0)))
    assert "Against t1 it never repays that: it is no faster." in "".join(Read(html(page_of(part.path))).text)


def test_a_damaged_file_spoils_no_page(part):
    for content in ("{", "[]", '{"agents": {"s": 3}, "failed": []}', '{"agents": {"s": {"batches": {"1": NaN}}}}'):
        (part.path / LATENCY).write_text(content)
        assert "Quality against cost" in html(page_of(part.path))
        found = latency.read(run_folder.read(part.path))
        show(io.StringIO(), *latency.tables(found, run_folder.read(part.path)))


def test_the_terminal_has_both_tables_within_80_columns(part):
    found = measured(t1=3.0, t2=9.0, s=1.0)
    run = run_folder.read(part.path)
    found["break_even"] = break_even(run, found)
    out = io.StringIO()
    show(out, *latency.tables(found, run), width=80)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "11,750" in out.getvalue() and "Assumed:" in out.getvalue()
    assert any("others were at work" in line for line in latency.said({**found, "agents": {"s": {"load": 9.0}}}))


def test_energy_has_its_source_and_co2_an_intensity_or_none(part):
    assert "CO2 is not known: no intensity was declared" in "".join(Read(html(page_of(part.path))).text)
    energy = {"joules": [36.0, 72.0], "by": [{"source": "estimate", "about": "6 CPU seconds"}], "lacks": "the GPUs"}
    part.edit(COSTS, lambda costs: costs.update(energy={**energy, "co2_grams": [4.0, 8.0], "co2_grams_per_kwh": 400}))
    said = "".join(Read(html(page_of(part.path))).text)
    assert "Energy: 36 to 72 J (estimate: 6 CPU seconds), without the GPUs. CO2: 4 to 8 g, at the declared 400" in said
