"""`kdmesh watch` and `runs --clean` of comparisons and sweeps."""

from __future__ import annotations

import json
import threading

import pytest
from commands import PATIENCE

from kdmesh.cli import main, watch_trials
from kdmesh.compare.analysis import analyse
from kdmesh.compare.design import Design
from kdmesh.compare.making import Maker, Told
from kdmesh.contracts.run_files import PROGRESS
from kdmesh.report import many
from kdmesh.report.folders import newest

ENTRY = {"mesh": {}, "agent": "s"}
DESIGN = Design.model_validate({"contenders": {"a": ENTRY, "b": ENTRY}, "seeds": [0, 1], "data_seeds": [0]})


def summary(value):
    return {"agents": {"s": {"metrics": {"test": {"accuracy": value}}}}, "seed": 0}


@pytest.fixture
def folder(tmp_path):
    """A comparison that was begun, and has no table."""
    root = tmp_path / "many" / "compare-a-b" / "29990101-000000"
    root.mkdir(parents=True)
    (root / "compare.json").write_text(DESIGN.model_dump_json())
    return root


def end(root, failed=()):
    found = {
        trial: summary(0.5 + 0.1 * (trial.contender == "b") + 0.01 * at) for at, trial in enumerate(DESIGN.trials())
    }
    table = analyse(DESIGN, found, dict.fromkeys(failed, "why"))
    (root / "comparison.json").write_text(json.dumps(table))


def test_one_that_has_ended_is_its_tables_and_has_its_code(folder, capsys):
    end(folder)
    assert main(["watch", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "b minus a" in out and out.splitlines()[-1] == str(folder) and err == ""
    end(folder, [next(DESIGN.trials())])
    assert main(["watch", str(folder)]) == 1
    assert f"1 trials failed; to try again: kdmesh resume {folder}" in capsys.readouterr().err


def test_by_default_the_newest_is_watched_be_it_a_comparison(folder, capsys, monkeypatch):
    folder.parents[1].rename(folder.parents[2] / "runs")
    monkeypatch.chdir(folder.parents[2])
    folder = folder.parents[2] / "runs" / folder.parent.name / folder.name
    assert newest("runs").resolve() == folder.resolve()
    assert main(["watch", "--once"]) == 130
    assert "comparison interrupted; go on with: kdmesh resume runs/compare-a-b" in capsys.readouterr().err


def test_one_that_goes_on_tells_its_lines_once_and_ends_with_its_tables(folder, at_work, capsys, monkeypatch):
    monkeypatch.setattr(watch_trials, "POLL", 0.01)
    shown = threading.Event()
    listener = many.listener

    def listening(stream):
        made = listener(stream)
        say = made.say
        made.say = lambda far, text: (say(far, text), shown.set() if "second" in text else None)
        return made

    monkeypatch.setattr(many, "listener", listening)
    maker = Maker(folder, 1, Told(4, whole=1, done=1, total=4), lambda told: None, lambda trial: 1)
    codes = []
    with at_work(folder):
        maker.tell("first: \x1b[2Jdone")
        watching = threading.Thread(target=lambda: codes.append(main(["watch", str(folder)])), daemon=True)
        watching.start()
        maker.tell("second: done")
        assert shown.wait(PATIENCE)
        end(folder)
        maker.close()
    watching.join(PATIENCE)
    out, err = capsys.readouterr()
    assert codes == [0] and "b minus a" in out
    assert [line for line in err.splitlines() if "done" in line] == [
        "[1 of 4] first: \\x1b[2Jdone", "[1 of 4] second: done"
    ]  # fmt: skip
    assert not list(folder.glob("*progress*"))


def test_progress_of_another_version_is_passed_over(folder, at_work, capsys):
    with at_work(folder):
        for text in ("{", "{}", '{"trials": "x"}', '{"version": 1, "trials": 1, "whole": 0, "done": 0, "total": 1}'):
            (folder / PROGRESS).write_text(text)
            assert main(["watch", "--once", str(folder)]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_table_is_refused(folder, capsys):
    (folder / "comparison.json").write_text("{}")
    assert main(["watch", str(folder)]) == 2
    assert "its tables cannot be made" in capsys.readouterr().err


def test_checkpoints_of_the_trials_of_a_finished_one_can_go(folder, runs, at_work, capsys):
    trial = folder / "trials" / "a" / "data-0-seed-0"
    trial.parent.mkdir(parents=True)
    runs["small"].rename(trial)
    parent = str(folder.parents[1])
    assert main(["runs", parent, "--clean"]) == 0 and capsys.readouterr().out == "nothing can go\n"  # it has no table
    end(folder)
    with at_work(folder):
        assert main(["runs", parent, "--clean"]) == 0 and capsys.readouterr().out == "nothing can go\n"
    assert main(["runs", parent, "--clean", "--yes"]) == 0
    assert str(trial / "checkpoints") in capsys.readouterr().out and not (trial / "checkpoints").exists()


def test_as_data_every_kind_is_listed(folder, runs, capsys):
    folder.parent.rename(runs.root / folder.parent.name)
    assert main(["runs", str(runs.root), "--json"]) == 0
    kinds = [one["kind"] for one in json.loads(capsys.readouterr().out)]
    assert kinds == ["run", "run", "comparison"]


def test_how_far_it_is_is_written_and_goes_away(tmp_path):
    maker = Maker(tmp_path, 1, Told(2, total=2, running={"a": 0.5}), lambda told: None, lambda trial: 1)
    maker.tell("a line")
    told = json.loads((tmp_path / PROGRESS).read_text())
    assert told["trials"] == 2 and told["running"] == {"a": 0.5} and told["lines"] == [[1, "a line"]]
    maker.told.running["b"] = 0.0  # it begins, moments later: who watches need not wait for its first step
    maker.tell("", at_once=True)
    assert json.loads((tmp_path / PROGRESS).read_text())["running"] == {"a": 0.5, "b": 0.0}
    maker.close()
    assert list(tmp_path.iterdir()) == []
