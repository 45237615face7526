from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
from page_text import Read

from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.report.page import at_end
from kdmesh.report.page.at_end import write_at_end
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import html, save
from kdmesh.report.page.known import Known
from kdmesh.report.page.verdicts import judged
from kdmesh.report.run_folder import read as read_folder

ODD = "<script>alert(1)</script>&\"'"


def page(folder: Path) -> Read:
    return Read(html(page_of(folder)))


def edit(folder: Path, change) -> None:
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))


def test_every_number_of_a_summary_stands_on_the_page(runs):
    summary = json.loads((runs["small"] / "summary.json").read_text())
    read = page(runs["small"])
    for kind in ("agents", "consensus"):
        for name, node in summary[kind].items():
            row = read.row("All figures", name)
            assert row["test accuracy"] == node["metrics"]["test"]["accuracy"]
            assert row["test loss"] == node["metrics"]["test"]["loss"]
            assert row["validation accuracy"] == node["metrics"]["validation"]["accuracy"]
            if kind == "agents":
                assert (
                    row["parameters"] == node["parameters"] and row["latency within the run, ms"] == node["latency_ms"]
                )
                assert [row["forwards made"], row["forwards saved"]] == [*node["forwards"].values()]
                assert read.row("Weights that came out", name)["sha256"] == node["weights_sha256"]
    assert "no verdict" in "".join(read.text)


def test_what_was_answered_and_what_rules_report_stand_on_the_page(runs):
    def change(summary):
        (node,) = summary["consensus"].values()
        node["answered"] = {"test": {"answered": 18, "rows": 24, "coverage": 0.75, "over_all": 0.5}}
        node["report"] = {"queries": 1234, ODD: 0.5}

    edit(runs["small"], change)
    (name,) = json.loads((runs["small"] / "summary.json").read_text())["consensus"]
    read = page(runs["small"])
    assert read.row("All figures", name)["role"] == "consensus, abstains"
    assert f"{name} answers 18 of 24 on test" in "".join(read.text)
    assert [f"rule of {name}", "queries", 1234] in read.tables["What rules and objectives report"]
    assert [f"rule of {name}", ODD, 0.5] in read.tables["What rules and objectives report"]


def test_how_gates_decided_stands_on_the_page(runs):
    def change(summary):
        told = {"gate": ODD, "asked": 4, "shut": 3, "kept": 0.25}
        summary["agents"]["s"]["gates"] = {"t1 -> s": told, "update": {**told, "shut": 0}, "odd": 3}

    edit(runs["small"], change)
    table = page(runs["small"]).tables["Gates"]
    assert ["t1 -> s", ODD, 4, 3, 0.25] in table and ["update of s", ODD, 4, 0, 0.25] in table


def test_means_over_seeds_and_verdicts_stand_on_the_page(runs):
    folder = runs["several"]
    results = json.loads((folder / "results.json").read_text())["over_seeds"]
    read = page(folder)
    for name, figure in results["accuracy"].items():
        row = read.row("All figures", name)
        assert [row["test accuracy"], row["± 95%"], row["seeds"]] == [figure["mean"], figure["half_width"], figure["n"]]
    pair = results["differences"]["s"]["control alone"]
    rows = [row for row in read.tables["Differences"] if row[:2] == ["s", "control alone"]]
    assert rows[0][2] == results["verdicts"][0]["verdict"] and rows[0][3] == pair["mean"]
    losses = [
        one["agents"]["s"]["metrics"]["test"]["loss"]
        for one in json.loads((folder / "results.json").read_text())["runs"]
    ]
    assert read.row("All figures", "s")["test loss"] == fmean(losses)
    assert f"{results['verdicts'][0]['verdict']}" in "".join(read.text).lower()


def test_a_card_says_what_is_shown_against_each_control(runs):
    known = Known.of(read_folder(runs["several"]))
    alone, best = known.over["verdicts"]
    assert [alone["against"], best["against"]] == ["alone", "best_teacher"]
    words = {}
    for told in (("better", "better"), ("better", "no difference shown"), ("worse", "better"), (None, None)):
        alone["verdict"], best["verdict"] = told
        (card,) = judged(known)
        words[told] = (card.word, card.tone)
    assert list(words.values()) == [
        ("better than alone and its best teacher only", "good"),
        ("better than alone; no difference shown to its best teacher only", "open"),
        ("worse than alone; better than its best teacher only", "open"),
        ("no verdict", "open"),
    ]


def test_losses_by_flow_are_those_of_the_events(runs):
    folder = runs["small"]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    told = {one["step"]: one for one in events if one["event"] == "trained" and "s" in one["losses"]}
    curves = {
        block.title: block for block in next(one for one in page_of(folder).sections if one.id == "curves").blocks[1:]
    }
    losses = {one.name: {x: y for x, y, *_ in one.points} for one in curves["Training loss"].series}
    assert told and losses["s"] == {step: one["losses"]["s"] for step, one in told.items()}
    flows = {one.name: {x: y for x, y, *_ in one.points} for one in curves["s: loss by flow"].series}
    first = next(iter(told.values()))
    expected = {flow: {step: one["flows"]["s"][flow] for step, one in told.items()} for flow in first["flows"]["s"]}
    assert flows == expected
    assert len(flows) == 2


def test_an_edited_summary_changes_the_page(runs):
    folder = runs["small"]
    edit(folder, lambda summary: summary["agents"]["s"]["metrics"]["test"].update(accuracy=0.123456789))
    read = page(folder)
    assert read.row("All figures", "s")["test accuracy"] == 0.123456789
    assert "accuracy on test 0.1235" in "".join(read.text)


def test_nothing_is_loaded_and_nothing_runs(runs):
    for name in ("small", "several"):
        text = html(page_of(runs[name]))
        read = Read(text)
        assert all(one.startswith("#") for one in read.addresses)
        assert not read.tags & {"script", "link", "iframe", "img", "object", "embed"}
        assert "@import" not in text and "url(" not in text.replace("url(#", "")
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
        assert "default-src 'none'" in text


def test_names_and_texts_with_html_are_escaped_everywhere(runs):
    folder = runs["small"]
    for file in ("summary.json", "manifest.json", "events.jsonl", "results.json"):
        path = folder / file
        text = path.read_text()
        for name in ("small", "s", "c", "t1"):
            text = text.replace(f'"{name}"', json.dumps(name + ODD + "\u202e"))
        path.write_text(text)
    (folder / "mesh.yaml").write_text(f"# {ODD}\x1b[31m\n")
    with (folder / "events.jsonl").open("a") as log:
        log.write(json.dumps({"event": "note", "t": 9, "text": f"{ODD} \x1b[31m"}) + "\n")
    text = html(page_of(folder))
    assert "<script" not in text and "alert(1)" in text
    assert "\x1b" not in text and "\u202e" not in text + html(page_of(folder), interactive=True)
    assert ODD in "".join(Read(text).text)


def test_figures_that_are_not_finite_are_none(runs):
    folder = runs["small"]

    def spoil(summary):
        summary["agents"]["s"]["metrics"]["test"].update(accuracy=float("nan"), loss=float("inf"))
        summary["agents"]["t1"]["metrics"]["test"]["accuracy"] = None
        summary["rounds"] = None

    edit(folder, spoil)
    read = page(folder)
    assert (
        read.row("All figures", "s")["test accuracy"] == "–" and read.row("All figures", "t1")["test accuracy"] == "–"
    )
    assert "was not measured on test" in "".join(read.text) and "nan" not in html(page_of(folder)).lower()


def test_a_summary_of_nonsense_leaves_a_page(runs):
    (runs["small"] / "summary.json").write_text('{"agents": {"s": 3}, "consensus": [], "task": 7, "rounds": 1}')
    assert "cannot be compared" in "".join(page(runs["small"]).text)


WRONG = [None, 10**400, -1e308, [[]], {"": {}}, "</script><script>document.title=1</script>", True, ["a", 1]]
PLACES = [
    ("summary.json", ("agents", "s", "metrics", "test")), ("summary.json", ("agents", "s", "role")),
    ("summary.json", ("controls",)), ("summary.json", ("rounds",)), ("summary.json", ("seed",)),
    ("costs.json", ("energy", "by")), ("costs.json", ("energy", "lacks")), ("costs.json", ("processes",)),
    ("manifest.json", ("data",)), ("manifest.json", ("packages",)), ("results.json", ("failed",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path"), PLACES, ids=lambda one: ".".join(one) if isinstance(one, tuple) else one)
def test_whatever_stands_in_an_edited_file_leaves_a_page(runs, name, path):
    file = runs["small"] / name
    was = file.read_text()
    for value in WRONG:
        whole = within = json.loads(was)
        for key in path[:-1]:
            within = within[key]
        within[path[-1]] = value
        file.write_text(json.dumps(whole))
        assert "<script>document" not in html(page_of(runs["small"]))


@pytest.mark.parametrize(
    "fields", [{"stage": {}}, {"step": [[]]}, {"losses": 3}, {"t": None}, {"flows": {"s": 1}}, {"step": 10**400}]
)
def test_events_of_other_types_are_counted_and_left_out(runs, fields):
    trained = {"event": "trained", "t": 1.0, "stage": "s", "step": 1, "epoch": None, "losses": {}, "flows": {}}
    folder = runs.unfinished(runs["small"], {**trained, **fields})
    assert "1 line of events.jsonl could not be read" in html(page_of(folder))


def test_runs_that_have_not_finished(runs, at_work):
    folder = runs.unfinished(
        runs["small"], {"event": "run_failed", "t": 1.0, "error": "no <memory>", "interrupted": False}
    )
    said = "".join(page(folder).text)
    assert "Failed: no <memory>" in said and "Nothing has been measured" in said and "failed: no <memory>" in said
    with at_work(folder):
        assert "It goes on" in "".join(page(folder).text)
    runs.unfinished(folder, cut='{"event": "eval')
    assert "cut off" in "".join(page(folder).text) and "resume goes on" in "".join(page(folder).text)


def test_a_run_that_was_resumed_has_its_times_in_a_row(runs):
    folder = runs["small"]
    lines = (folder / "events.jsonl").read_text().splitlines()
    lost = {"event": "host_lost", "t": 9.0, "host": "inline", "error": "killed"}
    begun = [line for line in lines if '"stage_started"' in line]
    again = [
        json.dumps(
            {**next(json.loads(line) for line in lines if '"run_started"' in line), "event": "run_resumed", "t": 0.5}
        )
    ]
    (folder / "events.jsonl").write_text("\n".join([*lines[:2], *begun, json.dumps(lost), *again, *lines[2:]]) + "\n")
    read = page(folder)
    happened = {row[2]: row[1] for row in read.tables["What happened"][1:]}
    assert happened["host_lost"] == 9.0 and happened["run_resumed"] == 9.5
    assert "2 failures and recoveries" in "".join(read.text) and "another process" in "".join(read.text)


def test_a_seed_that_is_lacking_is_said(runs):
    folder = runs["several"]
    (folder / "seeds" / "1" / "summary.json").unlink()
    said = "".join(page(folder).text)
    assert "1 of 2 seeds have no figures" in said and "One seed decides nothing" in said


def test_a_plan_that_cannot_be_made_is_said(runs):
    path = runs["small"] / "resolved.yaml"
    path.write_text(path.read_text().replace("mlp:", "nobody_offers_this:"))
    assert "It is not drawn: " in "".join(page(runs["small"]).text)


def test_the_command_writes_where_it_is_told(runs, tmp_path, capsys):
    assert main(["report", str(runs["small"])]) == 0
    assert capsys.readouterr().out.strip() == str(runs["small"] / "report.html")
    assert (runs["small"] / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert main(["report", str(runs["small"]), "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("at", "said"), [("nowhere/page.html", "there is no folder"), (".", "is a folder"), ("a\0b", "zero byte")]
)
def test_where_no_page_can_be_written(runs, tmp_path, at, said):
    with pytest.raises(MeshError, match=said):
        save(tmp_path / at, page_of(runs["small"]))


def test_what_is_no_run_is_refused(runs, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run's folder" in capsys.readouterr().err
    manifest = runs["small"] / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    assert main(["report", str(runs["small"])]) == 2
    assert "format 99" in capsys.readouterr().err


def test_a_run_writes_its_page_at_its_end_where_that_is_cheap(runs):
    folder = runs["small"]
    (folder / "report.html").unlink(missing_ok=True)  # the run itself writes one where the machine is slow
    assert write_at_end(folder, 1.0) == "would take about 1.0 s, more than 2% of this run"
    assert not (folder / "report.html").exists()
    assert write_at_end(folder, 1000.0) == ""
    assert "Finished: everything" in (folder / "report.html").read_text()


def test_a_page_that_cannot_be_written_harms_no_run(runs):
    folder = runs["small"]
    (folder / "report.html").unlink(missing_ok=True)
    (folder / "report.html").mkdir()
    assert write_at_end(folder, 1000.0).startswith("could not be written: is a folder")
    (folder / "manifest.json").write_text("{}")
    assert "could not be written" in write_at_end(folder, 1000.0)


def test_a_run_says_how_to_have_a_page_or_is_asked_for_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["run", "single-teacher", "--backend", "inline", "--set", "train.steps=1"]
    assert main(short) == 0
    said = capsys.readouterr()
    (folder,) = Path("runs/single-teacher").iterdir()
    assert f"to have it:\n  kdmesh report {folder}" in said.err and str(folder) in said.out
    monkeypatch.setattr(at_end, "SHARE", 1000.0)
    assert main([*short, "--quiet", "--no-report", "--out", "none"]) == 0
    assert main([*short, "--quiet", "--out", "some"]) == 0
    assert capsys.readouterr().err == ""
    assert not list(Path("none").rglob("report.html")) and len(list(Path("some").rglob("report.html"))) == 1


def test_what_it_cost_stands_on_the_page(runs):
    costs = json.loads((runs["small"] / "costs.json").read_text())
    read, page_text = page(runs["small"]), html(page_of(runs["small"]))
    assert all(f'value="{joules!r}"' in page_text for joules in costs["energy"]["joules"])
    rows = read.tables["Processes"][1:]
    assert [row[2:] for row in rows] == [[one["cpu_s"], one["peak_bytes"]] for one in costs["processes"]]
    (runs["small"] / "costs.json").unlink()
    assert "Memory and energy were not recorded" in "".join(page(runs["small"]).text)


def test_a_page_that_does_not_fit_on_the_disk_leaves_the_old_one(runs):
    folder = runs["small"]
    (folder / "report.html").write_text("the old page")
    before = {path.name for path in folder.iterdir()}

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # bytes of any file that is written

    command = [sys.executable, "-B", "-m", "kdmesh", "report", str(folder)]
    ended = subprocess.run(command, preexec_fn=full, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert ended.stderr.startswith("kdmesh: error: ") and "File too large" in ended.stderr
    assert (folder / "report.html").read_text() == "the old page" and {one.name for one in folder.iterdir()} == before


def test_a_run_ends_well_where_its_page_does_not_fit(runs, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "report.html")

    monkeypatch.setattr("kdmesh.report.page.html.save", full)
    assert "No space left on device" in write_at_end(runs["small"], 1e6)
