"""`kdmesh runs`: what was run, and what of it can go."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from kdmesh.cli import main
from kdmesh.report.folders import find
from kdmesh.report.grid import show
from kdmesh.report.run_folder import read
from kdmesh.report.runs import DAY, Row, amount, listed, row, span, spare

STOPPED = {"event": "run_failed", "t": 1.0, "error": "KeyboardInterrupt", "interrupted": True}


def edit(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def never_began(folder):
    for path in folder.iterdir():
        if path.name not in ("manifest.json", "mesh.yaml", "resolved.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_the_list_says_of_each_run_what_it_gave(runs, capsys):
    later = runs.root / "small" / "29990101-000000"
    runs.unfinished(runs["small"], STOPPED).rename(later)
    assert main(["runs", str(runs.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 runs" and max(map(len, lines)) <= 80
    assert lines[3].split()[:2] == ["small/29990101-000000", "paused"] and "0/1" in lines[3]
    assert "finished" in lines[4] and "accuracy" in lines[4]
    begin = lines[1].index("verdict")  # columns are as wide as what stands in them: an age, say
    end = re.search(r"\S", lines[1][begin + len("verdict") :]).start() + begin + len("verdict")
    assert "s equal in every pair to alone" in " ".join(" ".join(line[begin:end] for line in lines[4:]).split())


def test_as_data_it_has_what_the_files_say(runs, capsys):
    assert main(["runs", str(runs.root), "--json"]) == 0
    several, small = sorted(json.loads(capsys.readouterr().out), key=lambda one: one["name"])
    results = json.loads((runs["several"] / "results.json").read_text())["over_seeds"]
    assert several["students"] == {"s": results["accuracy"]["s"]["mean"]} and several["metric"] == "accuracy"
    assert len(several["verdicts"]) == 2 and small["verdicts"] == []
    assert (several["status"], several["seeds"], several["asked"]) == ("finished", 2, 2)
    assert several["path"] == str(runs["several"]) and several["bytes"] == read(runs["several"]).size


@pytest.mark.parametrize("width", [40, 80])
def test_any_width_fits_names_and_errors_that_are_shown_as_they_are(runs, capsys, width):
    edit(runs["small"] / "manifest.json", mesh={"name": "<script>\x1b[2J"}, format=99)
    results = runs["several"] / "results.json"
    table = json.loads(results.read_text())
    verdicts = [
        {**one, "agent": f"<b>{number}\x07", "verdict": "better"}
        for number in range(9)
        for one in table["over_seeds"]["verdicts"]
    ]
    figures = {f"s{number}": {"role": "student", "mean": 0.5} for number in range(300)}
    edit(results, over_seeds={**table["over_seeds"], "verdicts": verdicts, "accuracy": figures})
    with (runs.root / "out.txt").open("w+", encoding="utf-8") as file:
        show(file, listed([row(runs[name], runs.root)[0] for name in ("several", "small")]), width=width)
        file.seek(0)
        text = file.read()
    assert max(map(len, text.splitlines())) <= width and "\x1b" not in text and "\x07" not in text
    assert "15 more" in " ".join(text.split()) and "297 more" in text and "<b>0\\x07" in text
    assert "unreadable" in text and "in format 99" in " ".join(text.split())


def test_results_that_were_edited_give_an_empty_cell(runs):
    for over_seeds in (3, {}, {"metric": 3}, {"metric": "accuracy", "accuracy": {"s": 3}, "verdicts": []}):
        edit(runs["several"] / "results.json", over_seeds=over_seeds)
        found, _ = row(runs["several"], runs.root)
        assert found.status == "finished" and found.students == found.verdicts == ()


def test_no_run_and_no_folder(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0 and capsys.readouterr().out == f"no run in {tmp_path}\n"
    assert main(["runs", str(tmp_path / "none")]) == 2 and "does not exist" in capsys.readouterr().err
    assert main(["runs", str(tmp_path), "--yes"]) == 2 and "--clean --yes" in capsys.readouterr().err


def test_cleaning_deletes_what_it_named_and_nothing_without_yes(runs, at_work, capsys):
    old = runs.unfinished(runs["small"]).rename(runs.root / "small" / "20200101-000000")
    never_began(old)
    several = runs["several"]
    (several / ".1234abcd.part").write_text("half")
    before = {*runs.root.rglob("*")}
    assert main(["runs", str(runs.root), "--clean"]) == 0
    said = capsys.readouterr().out
    assert {*runs.root.rglob("*")} == before and "nothing was deleted: --clean --yes deletes it" in said
    assert said.count("checkpoints of a finished run") == 6 and str(old) in said
    with at_work(several):
        assert main(["runs", str(runs.root), "--clean", "--yes"]) == 0
        assert several.is_dir() and list(several.rglob("checkpoints")) and not old.exists()
    assert main(["runs", str(runs.root), "--clean", "--yes", "--json"]) == 0
    assert not list(several.rglob("checkpoints")) and not (several / ".1234abcd.part").exists()
    assert read(several).status == "finished" and (several / "seeds" / "0" / "agents" / "s").is_dir()
    capsys.readouterr()
    assert main(["runs", str(runs.root), "--clean"]) == 0 and capsys.readouterr().out == "nothing can go\n"


def test_runs_that_can_be_resumed_keep_everything(runs):
    folder = runs.unfinished(runs["small"], STOPPED)
    assert read(folder).status == "paused" and spare(read(folder), now=read(folder).begun + 99 * DAY) == []
    (folder / "events.jsonl").write_text("")
    assert spare(read(folder), now=read(folder).begun + 99 * DAY) == []  # it has checkpoints, whatever its log says
    never_began(folder)
    young = read(folder)
    assert young.status == "incomplete" and spare(young, now=young.begun + DAY / 2) == []
    assert [one.path for one in spare(young, now=young.begun + 2 * DAY)] == [folder]


@pytest.mark.parametrize("file", ["thesis.tex", "checkpoints/teacher/0002/weights.safetensors", ".movie.part"])
def test_a_folder_that_looks_like_a_run_stays_with_what_no_run_that_never_began_has(runs, file):
    folder = runs.unfinished(runs["small"], STOPPED)
    never_began(folder)
    (folder / ".1234abcd.part").write_text("half a file")
    young = read(folder)
    assert [one.path for one in spare(young, now=young.begun + 2 * DAY)] == [folder]
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("mine")
    assert spare(read(folder), now=young.begun + 2 * DAY) == []


def test_cleaning_follows_no_link(runs, tmp_path, capsys):
    outside = tmp_path / "outside"
    (outside / "checkpoints").mkdir(parents=True)
    (outside / "keep.txt").write_text("mine")
    folder = runs["small"]
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").symlink_to(outside, target_is_directory=True)
    part = runs["several"] / "seeds" / "1"
    shutil.copytree(part, outside / "part")
    shutil.rmtree(part)
    part.symlink_to(outside / "part", target_is_directory=True)
    os.symlink(outside / "keep.txt", runs["several"] / "seeds" / "0" / "checkpoints" / "link")
    (outside / ".1234abcd.part").write_text("mine")
    assert main(["runs", str(runs.root), "--clean", "--yes"]) == 0
    assert (outside / "keep.txt").exists() and (outside / "part" / "checkpoints").is_dir()
    assert (outside / ".1234abcd.part").exists() and (folder / "checkpoints").is_symlink()
    assert not (runs["several"] / "seeds" / "0" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("seconds", "said"), [(-5, "0 s"), (59, "59 s"), (61, "1 min"), (7200, "2 h"), (9 * DAY, "9 d")]
)
def test_a_span_is_told_in_its_largest_unit(seconds, said):
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 B"), (999, "999 B"), (1200, "1.2 kB"), (345678, "346 kB"), (2 * 10**13, "20.0 TB")]
)
def test_bytes_are_told_in_few_digits(size, said):
    assert amount(size) == said


def test_an_age_counts_from_the_beginning():
    assert (
        listed([Row(Path("x"), "x", status="finished", asked=1, begun=100.0)], now=100 + 2 * DAY).rows[0]["age"]
        == "2 d"
    )


def test_comparisons_are_listed_apart_and_are_no_runs(runs, at_work, capsys):
    folder = runs.root / "compare-a-b" / "29990101-000000"
    folder.mkdir(parents=True)
    (folder / "compare.json").write_text("{}")
    runs["small"].rename(folder / "trials")
    assert [path.name for path in find(runs.root)] == [runs["several"].name]

    def said():
        assert main(["runs", str(runs.root)]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    assert said() == f"comparison interrupted; go on with it: kdmesh resume {folder}"
    with at_work(folder):
        assert said() == f"comparison running: {folder}"
    (folder / "comparison.json").write_text('{"failed": {"a, seed 0": "why"}}')
    assert said() == f"comparison failed; go on with it: kdmesh resume {folder}"
    (folder / "comparison.json").write_text('{"failed": {}}')
    assert said() == f"comparison finished; its tables: kdmesh resume {folder}"
    assert main(["draw", str(folder)]) == 2
    capsys.readouterr()
    assert main(["runs", str(folder)]) == 0 and capsys.readouterr().out.splitlines()[-1].startswith("comparison fin")


def test_comparisons_and_sweeps_are_listed_with_verdicts_and_figures(tmp_path, capsys):
    table = {
        "failed": {}, "metric": "accuracy", "seeds": [0, 1, 2],
        "contenders": [{"contender": "a", "mean": 0.5}, {"contender": "b", "mean": 0.25}, {"contender": "c"}],
        "differences": [
            {"contender": "b", "against": "a", "verdict": "worse"},
            {"contender": "b", "against": "c", "lacks": "no trial of both is whole"},
        ],
    }  # fmt: skip
    for name, made, mark, end in (
        ("compared", table, "compare.json", "comparison.json"),
        ("swept", {"final": table}, "sweep.json", "sweep_result.json"),
        ("odd", {"final": {**table, "contenders": 3}}, "sweep.json", "sweep_result.json"),
    ):
        folder = tmp_path / name / "20990101-000000"
        folder.mkdir(parents=True)
        (folder / mark).write_text("{}")
        (folder / end).write_text(json.dumps(made))
    assert main(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 comparison and 2 sweeps") and out.count("b worse than a") == 2
    assert out.count("a 0.5000") == out.count("b 0.2500") == 2 and max(map(len, out.splitlines()[:-3])) <= 80
    assert main(["runs", str(tmp_path), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["compared"]["verdicts"] == rows["swept"]["verdicts"] == ["b worse than a"]
    assert rows["swept"]["students"] == {"a": 0.5, "b": 0.25} and rows["swept"]["asked"] == 3
    assert rows["odd"]["kind"] == "sweep" and rows["odd"]["verdicts"] == [] and rows["odd"]["status"] == "finished"


def test_sweeps_are_listed_apart_and_are_no_runs(runs, capsys):
    folder = runs.root / "sweep-a" / "29990101-000000"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text("{}")
    runs["small"].rename(folder / "trials")
    assert [path.name for path in find(runs.root)] == [runs["several"].name]
    for table, said in (
        ("", "interrupted; go on with it: "),
        ('{"final": {"failed": {"mesh, seed 0": "why"}}}', "failed; go on with it: "),
        ('{"final": {"failed": {}}}', "finished; its tables: "),
    ):
        (folder / "sweep_result.json").write_text(table)
        assert main(["runs", str(runs.root)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"sweep {said}kdmesh resume {folder}"
