"""Whole sweeps in this process."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from conftest import HOT, LR, MESH, begun, swept

from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.hosts.host import Host
from kdmesh.report.sweep_table import sweep_tables
from kdmesh.sweep.sweeping import Sweeping


@pytest.fixture(scope="module")
def whole(tmp_path_factory, here):
    """A sweep with a planted optimum, and the streams that were measured before and after it had chosen."""
    root = begun(tmp_path_factory.mktemp("whole"), f"{LR}=1e-9,0.03", f"{HOT}=1,4", seeds=2)
    measured = {False: set(), True: set()}
    with pytest.MonkeyPatch.context() as patch:
        for method in ("evaluate", "evaluate_consensus"):
            real = getattr(Host, method)

            def spied(host, name, stream, *rest, real=real):
                if host.name != "trial":  # the check's own, on stand-ins
                    measured[(root / "chosen.json").exists()].add(stream)
                return real(host, name, stream, *rest)

            patch.setattr(Host, method, spied)
        table = swept(root)
    return root, table, measured


def test_the_planted_optimum_is_found_by_every_arm(whole):
    _, table, _ = whole
    chosen = {arm["arm"]: arm["chosen"] for arm in table["arms"]}
    assert chosen["mesh"][LR] == chosen["alone"][LR] == chosen["best-teacher"][LR] == 0.03
    assert HOT in chosen["mesh"] and HOT not in chosen["alone"]


def test_test_is_measured_only_after_the_choice(whole):
    root, _, measured = whole
    assert measured == {False: {"validation"}, True: {"validation", "test"}}
    for path in root.glob("trials/*/*/*/summary.json"):
        agents = json.loads(path.read_text())["agents"].values()
        assert all(("test" in agent["metrics"]) == (path.parent.name in ("seed-0", "seed-1")) for agent in agents)


def test_every_arm_has_the_same_budget(whole):
    _, table, _ = whole
    assert {arm["trials"] for arm in table["arms"]} == {4}
    assert len({arm["updates"] for arm in table["arms"]}) == 1 and table["arms"][0]["updates"] > 0
    assert [arm["points"] for arm in table["arms"]] == [4, 2, 4]


def test_what_was_chosen_is_judged_by_pairs_of_fresh_seeds(whole):
    root, table, _ = whole
    final = table["final"]
    assert [row["against"] for row in final["differences"]] == ["alone", "best-teacher"]
    assert all(row["n"] == 2 and row["verdict"] for row in final["differences"])
    values = {(one["contender"], one["seed"]): one["value"] for one in final["trials"]}
    expected = sum(values["mesh", seed] - values["alone", seed] for seed in (0, 1)) / 2
    assert final["differences"][0]["mean"] == pytest.approx(expected)
    assert json.loads((root / "sweep_result.json").read_text()) == json.loads(json.dumps(table))


def test_points_csv_has_a_row_for_every_point(whole):
    root, _, _ = whole
    with (root / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and sum(int(row["chosen"]) for row in rows) == 3
    assert {row[HOT] for row in rows if row["arm"] == "alone"} == {""}
    assert all(0 <= float(row["validation"]) <= 1 and row["metric"] == "accuracy" for row in rows)


@pytest.mark.parametrize("width", [40, 80])
def test_the_tables_fit_and_say_how_it_was_chosen(whole, width):
    lines = [line for grid in sweep_tables(whole[1]) for line in grid.lines(width)]
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for words in ("no trial of the search was measured on test", "Every arm had as many trials", "chosen"):
        assert words in text


def test_its_progress_ends_at_the_whole_also_with_runs_for_their_teachers_alone(whole):
    told = []
    Sweeping(whole[0]).run(lambda far: told.append((far.whole, far.trials, far.done, far.total)))
    made, trials, done, total = told[-1]
    assert made == trials == len(list(whole[0].glob("trials/*/*/*/summary.json"))) and done == total


def test_a_whole_sweep_is_not_made_again(whole, here, monkeypatch):
    root, table, _ = whole
    monkeypatch.setattr(here, "before", staticmethod(lambda trial: pytest.fail(f"{trial} is made again")))
    assert swept(root) == table


def test_interrupted_between_any_two_trials_it_ends_with_the_same_table(whole, here, tmp_path, monkeypatch):
    root, left = begun(tmp_path, f"{LR}=1e-9,0.03", f"{HOT}=1,4", seeds=2), [0]

    def stop(trial):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(here, "before", staticmethod(stop))
    for trials in (1, 6, 5, 2):  # among the points, among the controls, once it has chosen, at the end
        left[0] = trials
        with pytest.raises(KeyboardInterrupt, match="kdmesh resume"):
            swept(root)
    left[0] = 100
    assert swept(root) == whole[1]


def test_a_point_that_fails_is_counted_and_not_chosen(here, tmp_path):
    mesh = MESH.replace("{adamw: {lr: 0.01}}", "{sgd: {lr: 0.1}}")
    root = begun(tmp_path, "train.optimizer.sgd.lr=1e38,0.1", mesh=mesh, seeds=1, controls=False)
    table = swept(root)
    assert table["arms"][0]["failed"] == 1 and table["arms"][0]["chosen"] == {"train.optimizer.sgd.lr": 0.1}
    assert "failed 1 of 1" in "\n".join(line for grid in sweep_tables(table) for line in grid.lines(80))


def test_halving_trains_few_for_long_and_its_arms_alike(here, tmp_path):
    root = begun(tmp_path, f"{LR}=1e-9,1e-8,0.01,0.03", seeds=1, halving=2, mesh=MESH.replace("[one, two]", "one"))
    table = swept(root)
    assert table["rungs"] == [{"points": 4, "part": 4}, {"points": 2, "part": 2}, {"points": 1, "part": 1}]
    assert {(arm["trials"], arm["updates"]) for arm in table["arms"]} == {(7, table["arms"][0]["updates"])}
    assert {arm["chosen"][LR] for arm in table["arms"]} <= {0.01, 0.03}


BAD = [
    (["train.nothing=1,2"], [], "nothing"),
    ([f"{LR}=0.1,-1"], [], "lr=-1"),
    ([f"{LR}=0.1,fast"], [], "lr=fast"),
    ([f"{LR}=0.1"], [], "one value is nothing to search"),
    ([f"{LR}=0.1,0.1"], [], "stands twice"),
    ([f"{LR}=0.1,0.2", f"{LR}=0.3,0.4"], [], "stands twice"),
    (["train.batch_size=1..10001"], [], "more than 10,000 points"),
    ([f"{LR}=0.1..0.2"], [], "has no grid"),
    ([f"{LR}=0.1,0.2"], ["--random", "5"], "2 points, and 5 are asked for"),
    ([f"{LR}=0.1,0.2"], ["--random", "1"], "one point"),
    ([f"{LR}=0.1,0.2"], ["--sampler", "oracle"], "unknown sampler 'oracle'"),
    ([f"{LR}=0.1,0.2"], ["--set", "data.validation=0"], "data.validation"),
    (["data.test=0.2,0.3"], [], "other samples"),
    ([f"{LR}=1.0e-2,0.0100"], [], "stands twice"),
    (["agents.student.model.mlp.hidden=[8],[8.5]"], [], "hidden"),
    ([f"{LR}=0.1,0.2"], ["--halving", "7"], "cannot be divided"),
    ([f"{LR}=0.1,0.2"], ["--equal", "3"], "is no margin"),
    ([f"{LR}=0.1,0.2"], ["--agent", "nobody"], "no agent 'nobody'"),
    ([], [], "nothing to search"),
]


@pytest.mark.parametrize(("over", "more", "said"), BAD)
def test_what_cannot_be_swept_is_refused_before_anything_trains(tmp_path, monkeypatch, capsys, over, more, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(MESH, encoding="utf-8")
    arguments = [part for one in over for part in ("--over", one)]
    assert main(["sweep", "small.yaml", *arguments, *more, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_a_design_that_was_edited_is_refused(here, tmp_path, capsys):
    path = begun(tmp_path, f"{LR}=0.01,0.03", seeds=1) / "sweep.json"
    path.write_text(path.read_text().replace("0.03", "0.1"))
    assert main(["resume", str(path.parent)]) == 2
    assert "was edited since the sweep began" in capsys.readouterr().err


def test_a_choice_that_was_edited_is_refused(whole, tmp_path, capsys):
    root = tmp_path / "sweep"
    shutil.copytree(whole[0], root)
    path = root / "chosen.json"
    path.write_text(path.read_text().replace("0.03", "1e-09"))
    assert main(["resume", str(root)]) == 2
    assert "chosen.json: was edited since the sweep began" in capsys.readouterr().err
    path.unlink()
    assert main(["resume", str(root)]) == 2
    assert "chosen.json: was deleted" in capsys.readouterr().err


def test_trials_of_other_data_than_the_sweep_began_with_are_refused(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["x,z,y", *(f"{at % 7},{at % 5},{'ab'[at % 2]}" for at in range(40))]))
    mesh = MESH.replace("{dataset: digits, train: 100}", "{dataset: {csv: {path: data.csv, label: y}}}")
    root = begun(tmp_path, f"{LR}=0.01,0.03", mesh=mesh, seeds=1, controls=False)
    data.write_text(data.read_text().replace(",a", ",b", 3))
    with pytest.raises(MeshError, match=r"(?s)every point failed.*data\.y_sha256: was"):
        swept(root)


def test_trials_are_as_strict_with_signals_as_the_sweep(here, tmp_path):
    sweeping = Sweeping(begun(tmp_path, f"{LR}=0.01,0.03", seeds=1, controls=False, strict_signals=True))
    (trial,) = sweeping._tests({"mesh": json.dumps({LR: 0.01})})
    assert sweeping._order(trial).strict_signals


@pytest.mark.parametrize("store", [None, "off", "kept"])
def test_trials_have_the_store_of_the_sweep(here, tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)
    sweeping = Sweeping(begun(tmp_path, f"{LR}=0.01,0.03", seeds=1, controls=False, store=store))
    (trial,) = sweeping._tests({"mesh": json.dumps({LR: 0.01})})
    assert sweeping._order(trial).store == (str(tmp_path / "kept") if store == "kept" else store)


@pytest.mark.parametrize(
    "command", [["sweep", "ensemble", "--over", f"{LR}=0.01,0.03"], ["compare", "ensemble", "council"]]
)
def test_no_more_seeds_than_a_run_has(command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--seeds", "1001"])
    assert "1,001 is more than 1,000" in capsys.readouterr().err


def test_a_damaged_or_newer_sweep_is_named(tmp_path, capsys):
    for text, said in (('{"version": 2}', "newer version"), ('{"version": 1}', "name"), ("{", "sweep.json")):
        (tmp_path / "sweep.json").write_text(text)
        assert main(["resume", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err


def test_a_point_that_names_code_is_refused_where_no_code_is_allowed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(MESH, encoding="utf-8")
    (tmp_path / "ours.py").write_text("raise SystemExit('was imported')", encoding="utf-8")
    over = "agents.student.model={mlp: {hidden: [4]}}, 'ours:Net'"
    assert main(["sweep", "small.yaml", "--over", over, "--no-code"]) == 2
    assert "ours:Net" in capsys.readouterr().err


def test_what_resuming_ignores_is_refused(whole, capsys):
    for flag in (["--backend", "ray"], ["--from-start"]):
        assert main(["resume", str(whole[0]), *flag]) == 2
        assert "goes on as it was begun" in capsys.readouterr().err
