"""A run's folder as data, however it was left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdmesh.contracts.events import SCHEMA, Evaluated, RunFailed, RunFinished
from kdmesh.contracts.run_files import FORMAT
from kdmesh.errors import MeshError
from kdmesh.files import locked
from kdmesh.report.folders import find
from kdmesh.report.log import Log
from kdmesh.report.run_folder import part_folders, read


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_finished_run_is_read_whole(made):
    (folder,) = (made / "small").iterdir()
    run = read(folder)
    assert (run.name, run.status, run.error, run.format, run.seed_numbers) == ("small", "finished", "", FORMAT, (0,))
    assert run.summary == json.loads((folder / "summary.json").read_text())
    assert run.results == json.loads((folder / "results.json").read_text())
    assert run.manifest["packages"]["torch"] and run.summaries == [run.summary] and run.remarks == []
    assert isinstance(run.log.events[-1], RunFinished) and run.log.schema == SCHEMA and not run.log.cut
    assert run.runs == {0: run} and run.parts == [("seed 0", run)] and run.seeds == run.controls == {}
    assert run.begun == pytest.approx((folder / "manifest.json").stat().st_mtime, abs=5)


def test_seeds_and_controls_are_folders_like_it(made):
    (folder,) = (made / "several").iterdir()
    run = read(folder)
    assert (run.status, run.seed_numbers, [*run.seeds]) == ("finished", (0, 1), [0, 1])
    assert len(run.summaries) == 2 and run.summary is None
    controls = run.seeds[1].controls
    assert [*controls] == [("s", "alone"), ("s", "best_teacher")]
    assert {part.status for _, part in run.parts} == {"finished"}
    assert [name for name, _ in run.parts][:3] == ["", "seed 0", "seed 0, s alone"]
    assert [name for name, _ in run.parts][-1] == "seed 1, s by the best teacher only"
    assert part_folders(folder, (0, 1)) == {name: part.path for name, part in run.parts}
    assert read(controls["s", "alone"].path) == controls["s", "alone"]


def test_sizes_are_those_on_disk_and_follow_no_link(runs, tmp_path):
    folder = runs["small"]
    (tmp_path / "large").write_bytes(b"x" * 10**6)
    (folder / "linked").symlink_to(tmp_path)
    run = read(folder)
    files = [path for path in folder.rglob("*") if path.is_file() and "linked" not in path.parts]
    on_disk = sum(path.stat().st_size for path in files)
    assert run.size - run.sizes["linked"] == on_disk and run.sizes["linked"] < 1000
    assert run.sizes["checkpoints"] > 0 and run.sizes["manifest.json"] == (folder / "manifest.json").stat().st_size


STOPPED = {"event": "run_failed", "t": 1.0, "error": "KeyboardInterrupt", "interrupted": True}
BROKEN = {"event": "run_failed", "t": 1.0, "error": "a loss is NaN", "interrupted": False}


@pytest.mark.parametrize(
    ("last", "status", "error"),
    [(STOPPED, "paused", ""), (BROKEN, "failed", "a loss is NaN"), (None, "interrupted", "")],
)
def test_how_a_run_that_did_not_finish_stands(runs, at_work, last, status, error):
    folder = runs.unfinished(runs["small"], *([last] if last else []))
    assert (read(folder).status, read(folder).error) == (status, error)
    with at_work(folder):
        assert locked(folder / ".lock") and read(folder).status == "running"
    assert read(folder).status == status
    (folder / ".lock").write_text("{}")  # as a kill leaves it
    assert read(folder).status == status


def test_the_part_that_was_written_last_says_how_a_run_of_several_stands(runs, at_work):
    folder = runs["several"]
    runs.unfinished(folder)
    assert read(folder).status == "interrupted"
    part = runs.unfinished(folder / "seeds" / "1", STOPPED)
    os.utime(part / "events.jsonl", (2e9, 2e9))
    run = read(folder)
    assert (run.status, run.seeds[0].status, run.seeds[1].status) == ("paused", "finished", "paused")
    with at_work(folder):
        assert read(folder).status == "running" and read(folder / "seeds" / "0").status == "finished"
        (part / "events.jsonl").write_text("")
        assert read(part).status == "running"
    (folder / "results.json").write_text('{"failed": {"seed 1": "a loss is NaN"}}')
    assert (read(folder).status, read(folder).error) == ("failed", "seed 1: a loss is NaN")


def test_a_run_that_never_trained_is_incomplete(runs):
    folder = runs.unfinished(runs["small"])
    (folder / "events.jsonl").write_text('{"event": "hosts_opening", "t": 0.1, "backend": "inline", "hosts": {}}\n')
    assert read(folder).status == "incomplete"
    (folder / "events.jsonl").unlink()
    assert read(folder).status == "incomplete" and read(folder).log == Log()


def test_a_cut_line_unknown_kinds_and_another_schema_are_said_and_passed_over(runs):
    folder = runs["small"]
    before = read(folder).log.events
    with (folder / "events.jsonl").open("a") as log:
        log.write('{"schema": 7, "event": "slept", "t": 1, "for": 3}\nno json\n[1]\n')
        log.write('{"event": "note", "t": 2, "text": "later", "by": "a newer version"}\n{"event": "no')
    run = read(folder)
    assert run.status == "finished" and run.log.cut and run.log.schema == 7
    assert run.log.events[:-1] == before and run.log.events[-1].text == "later"
    assert run.log.unknown == {"slept": 1, "": 2}
    assert [said.partition(":")[0] for said in run.remarks] == [
        "its events are of a newer version of kdmesh", "events of kinds that are not known here are left out",
        "2 lines of events.jsonl could not be read",
    ]  # fmt: skip


def test_metrics_that_are_not_finite_are_null(runs):
    folder = runs.unfinished(runs["small"], {
        "event": "evaluated", "t": 1.0, "stage": "s", "agent": "s", "stream": "test", "epoch": None,
        "metrics": {"accuracy": None},
    })  # fmt: skip
    (last,) = (event for event in read(folder).log.events[-1:] if isinstance(event, Evaluated))
    assert last.metrics == {"accuracy": None}


def test_a_log_of_many_rounds_is_read_whole_and_its_end_is_found(runs):
    figures = {"agreement": 0.5, "churn": None, "consensus": {}, "accuracy": {"s": 0.5}, "gain": {"s": 0.0}}
    rounds = [
        {"event": "round_finished", "t": 1.0 + n, "stage": "s", "round": n, "rounds": 2000, "metrics": figures}
        for n in range(1, 2001)
    ]
    folder = runs.unfinished(runs["small"], *rounds, BROKEN)
    run = read(folder)
    assert run.status == "failed" and isinstance(run.log.events[-1], RunFailed) and len(run.log.events) > 2000


MANY = '{"mesh": {"name": "m"}, "seed": 0, "begun": {"seeds": 1000000000000}}'


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"mesh": 3}', '{"mesh": {"name": 3}}', MANY])
def test_a_manifest_that_tells_of_no_run_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(MeshError, match=r"is not a run's folder: its manifest\.json"):
        read(tmp_path)


def test_what_is_no_run_s_folder_is_refused_with_what_to_give_instead(made, tmp_path):
    with pytest.raises(MeshError, match=r"is not a run's folder: it has no manifest\.json") as refused:
        read(tmp_path)
    assert refused.value.instead == "a run's folder: runs/<name>/<time>" and refused.value.exit_code == 2
    with pytest.raises(MeshError) as refused:
        read(made)
    assert Path(refused.value.instead) == find(made)[0]
    with pytest.raises(MeshError, match="does not exist"):
        read(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(MeshError, match="is a file"):
        read(tmp_path / "file")


def test_a_run_of_a_newer_version_is_refused_here_and_by_resume(runs):
    from kdmesh.engine.resume import asked

    folder = runs["small"]
    change(folder / "manifest.json", format=FORMAT + 1)
    for reads in (read, asked):
        with pytest.raises(MeshError, match=rf"in format {FORMAT + 1}; this version reads up to format {FORMAT}"):
            reads(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["format"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read(folder).format == 1


def test_runs_are_found_below_a_folder_newest_first(runs, tmp_path):
    later = runs.root / "small" / "29990101-000000"
    runs["small"].rename(later)
    (tmp_path / "elsewhere" / "m" / "20200101-000000").mkdir(parents=True)
    (tmp_path / "elsewhere" / "m" / "20200101-000000" / "manifest.json").write_text("{}")
    (runs.root / "out").symlink_to(tmp_path / "elsewhere")
    (runs.root / "circle").symlink_to("circle")
    assert find(runs.root) == [later, runs["several"]] and find(later) == [later]
    assert find(runs.root / "small") == [later] and find(tmp_path / "none") == []


def test_a_manifest_of_endless_seeds_is_refused_at_once(runs):
    change(runs["several"] / "manifest.json", begun={"seeds": 10**12})
    with pytest.raises(MeshError, match="tells of more than 1,000 seeds"):
        read(runs["several"])


def test_what_cannot_be_reached_is_no_run(runs):
    os.symlink("/proc/1/cwd", runs.root / "other")  # of another user, whom we may be too
    assert len(find(runs.root)) == 2


def test_it_is_read_without_torch():
    probe = "import sys, kdmesh.report.run_folder; print({'torch', 'ray', 'transformers', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
