"""`kdmesh compare` in processes of its own: paired trials, their folders, and what interruptions leave."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest
from commands import interrupt_and_resume, kdmesh

from kdmesh.cli import main
from kdmesh.compare.analysis import analyse
from kdmesh.compare.child import request
from kdmesh.compare.comparison import Asked, Comparison, begin, design
from kdmesh.compare.contender import contenders
from kdmesh.compare.making import Maker, Told
from kdmesh.engine.experiment import Experiment
from kdmesh.errors import MeshError

pytestmark = pytest.mark.long

MESH = """
name: small
data: {dataset: digits, train: 200}
agents:
  teacher: {model: {mlp: {hidden: [16]}}}
  student: {model: {mlp: {hidden: [8]}}}
connect: [{ensemble: {teachers: [teacher], student: student, objective: {kl: {temperature: 1}}}}]
train: {epochs: 2, batch_size: 32, optimizer: {adamw: {lr: 0.01}}}
"""
HOT = "hot: connect.0.ensemble.objective.kl.temperature=8"
ARGUMENTS = ["compare", "small.yaml", "--variant", HOT, "--seeds", "2", "--quiet"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "small.yaml").write_text(MESH, encoding="utf-8")
    done = kdmesh(folder, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1], done.stdout


def table(root: Path) -> dict:
    return json.loads((root / "comparison.json").read_text())


def weights(root: Path) -> dict:
    found = {}
    for path in sorted(root.glob("trials/**/summary.json")):
        agents = json.loads(path.read_text())["agents"].values()
        found[str(path.parent.relative_to(root))] = [one["weights_sha256"] for one in agents]
    return found


def test_every_trial_is_an_ordinary_run_and_the_table_is_kept(unbroken):
    root, said = unbroken
    found = table(root)
    assert [row["n"] for row in found["contenders"]] == [2, 2]
    assert found["differences"][0]["contender"] == "hot" and found["differences"][0]["n"] == 2
    assert {row["against"] for row in found["contenders"][0]["controls"]} == {"alone"}
    over = found["differences"][0]["over_samples"]
    assert over["trials"] == 2 and over["mean"] == pytest.approx(found["differences"][0]["mean"])
    for name in ("small", "hot"):
        for seed in (0, 1):
            trial = root / "trials" / name / f"data-0-seed-{seed}"
            assert all((trial / name).is_file() for name in ("manifest.json", "results.json", "events.jsonl"))
    with (root / "comparison.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    import pyarrow.parquet as pq

    assert pq.read_table(root / "comparison.parquet").num_rows == 4
    assert "no difference shown" in said or "better" in said or "worse" in said


def test_arms_share_split_weights_and_batches_where_only_a_student_is_taught_otherwise(unbroken):
    made = weights(unbroken[0])
    for seed in (0, 1):
        (teacher, cold), (same, hot) = (made[f"trials/{name}/data-0-seed-{seed}"] for name in ("small", "hot"))
        assert teacher == same and cold != hot
    assert made["trials/small/data-0-seed-0"] != made["trials/small/data-0-seed-1"]


def test_a_whole_comparison_is_not_made_again(unbroken):
    root, _ = unbroken
    before, times = table(root), {path: path.stat().st_mtime_ns for path in root.glob("trials/**/summary.json")}
    again = kdmesh(root, "resume", str(root), "--quiet")
    assert again.returncode == 0, again.stderr
    assert table(root) == before
    assert {path: path.stat().st_mtime_ns for path in root.glob("trials/**/summary.json")} == times


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("whole", [0, 2])
def test_interrupted_anywhere_it_ends_with_the_table_of_the_unbroken_one(unbroken, tmp_path, number, whole):
    (tmp_path / "small.yaml").write_text(MESH, encoding="utf-8")
    root = interrupt_and_resume(tmp_path, ARGUMENTS, "*/*", number, whole)
    assert table(root) == table(unbroken[0])
    assert weights(root) == weights(unbroken[0])


def test_a_trial_that_fails_does_not_keep_the_others_from_being_made(tmp_path):
    (tmp_path / "small.yaml").write_text(MESH, encoding="utf-8")
    done = kdmesh(
        tmp_path, "compare", "small.yaml", "--variant", "wild: train.optimizer.sgd.lr=1e38", "--seeds", "1", "--quiet",
        "--no-controls", "--set", "train.optimizer={sgd: {lr: 0.1}}",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 2 trials failed; wild, seed 0" in done.stderr and "kdmesh resume" in done.stderr
    assert "Traceback" not in done.stderr
    (root,) = tmp_path.glob("runs/*/*")
    found = table(root)
    assert list(found["failed"]) == ["wild, seed 0"] and found["differences"][0]["lacks"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["small.yaml"], "nothing to be compared with"),
        (["small.yaml", "regression"], "is of task classification"),
        (["small.yaml", "--variant", "data.seed=3"], "has data seed 3, small has 0"),
        (["small.yaml", "--variant", "data.test=0.3"], "tested on different samples"),
        (["small.yaml", "--variant", "seed=3"], "small and variant-1 are one mesh"),
        (["small.yaml", "--variant", "primary=loss"], "is judged by accuracy"),
        (["small.yaml", "--variant", "seed=3 train.epochs=1"], "--set seed=0"),
        (["small.yaml", "--variant", "train.epochs=1", "--out", "memory://runs"], "--out: found 'memory://runs'"),
        (["small.yaml", "--variant", "train.epochs=1", "--equal", "0.5"], "0.5 is no margin"),
        (["small.yaml", "--variant", "train.epochs=1", "--equal", "-1"], "-1 is no margin"),
        (["small.yaml", "--variant", "train.epochs=1", "--equal", "nan"], "nan is no margin"),
        (["small.yaml", "--variant", "train.epochs=1", "--agent", "nobody"], "has no agent 'nobody'"),
        (["small.yaml", "--variant", "agents.teacher.weights=there", "--splits", "2"], "there"),
        (["small.yaml", "nothing.yaml"], "no such file"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_to_write_instead(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(MESH, encoding="utf-8")
    assert main(["compare", *arguments, "--seeds", "2"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_damaged_or_newer_comparison_is_named(tmp_path, capsys):
    for text, said in (
        ('{"version": 2}', "newer version"),
        ('{"version": 1, "contenders": {}}', "seeds"),
        ("{", "compare.json"),
    ):
        (tmp_path / "compare.json").write_text(text)
        assert main(["resume", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--backend", "ray"], ["--from-start"]])
def test_what_a_comparison_would_not_heed_is_refused(tmp_path, capsys, flags):
    (tmp_path / "compare.json").write_text("{}")
    assert main(["resume", str(tmp_path), *flags]) == 2
    assert f"{flags[0]}: a comparison goes on as it was begun" in capsys.readouterr().err


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A comparison of two meshes of a file of data, none of whose trials has been made."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{at % 7},{at % 5},{'ab'[at % 2]}" for at in range(40)]
    (tmp_path / "data.csv").write_text("\n".join(["x,z,y", *rows]))
    mesh = MESH.replace("{dataset: digits, train: 200}", "{dataset: {csv: {path: data.csv, label: y}}}")
    (tmp_path / "small.yaml").write_text(mesh, encoding="utf-8")
    made = contenders(["small.yaml"], ["train.epochs=1"], [], [[]])
    return begin(tmp_path / "runs", design(made, Asked(seeds=1, controls=False))[0])


def test_a_trial_of_other_data_than_the_comparison_began_with_is_refused(begun, tmp_path):
    comparison = Comparison(begun)
    first, second = comparison.design.trials()
    Experiment(request(comparison.order(first))).run()
    data = tmp_path / "data.csv"
    data.write_text(data.read_text().replace(",a", ",b", 3))
    with pytest.raises(MeshError, match=r"data\.y_sha256: was"):
        Experiment(request(comparison.order(second))).run()
    assert (begun / first.folder / "results.json").exists() and not (begun / second.folder).exists()


def test_a_trial_has_the_control_by_its_best_teacher_though_that_reads_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two = MESH.replace("student: {model", "other: {model: {mlp: {hidden: [12]}}}\n  student: {model")
    (tmp_path / "two.yaml").write_text(two.replace("[teacher]", "[teacher, other]"), encoding="utf-8")
    made = contenders(["two.yaml"], [HOT], ["train.epochs=1"], [[]])
    comparison = Comparison(begin(tmp_path / "runs", design(made, Asked(seeds=1))[0]))
    first = next(iter(comparison.design.trials()))
    summary = Experiment(request(comparison.order(first))).run().summaries[0]
    assert set(summary["controls"]["student"]) == {"alone", "best_teacher"}
    assert "test" in summary["controls"]["student"]["best_teacher"], summary["notes"]
    assert (comparison.root / first.folder / "controls" / "student-best-teacher" / "summary.json").is_file()


@pytest.mark.parametrize("there", [True, False])
def test_each_form_of_the_table_is_kept_or_said_to_lack(begun, monkeypatch, there):
    if not there:
        monkeypatch.setattr("kdmesh.compare.comparison.find_spec", lambda name: None)
    comparison, lines = Comparison(begun), []
    comparison.maker = Maker(begun, 1, Told(0), lambda told: lines.append(told.line), lambda trial: 1)
    trials = {
        trial: {"agents": {"student": {"metrics": {"test": {"accuracy": 0.5}}}}} for trial in comparison.design.trials()
    }
    comparison._keep(analyse(comparison.design, trials))
    rows = list(csv.DictReader((begun / "comparison.csv").open(newline="")))
    assert [row["value"] for row in rows] == ["0.5", "0.5"] and table(begun)["trials"][0]["value"] == 0.5
    assert (begun / "comparison.parquet").exists() == there
    assert [line for line in lines if "pip install 'kdmesh[parquet]'" in line] == lines and bool(lines) != there


def test_a_design_that_was_edited_is_refused(begun, capsys):
    path = begun / "compare.json"
    path.write_text(path.read_text().replace('"epochs": 1', '"epochs": 3'))
    assert main(["resume", str(begun)]) == 2
    assert "was edited since the comparison began" in capsys.readouterr().err


def test_a_comparison_of_code_goes_on_without_it_only_where_that_is_allowed(begun, capsys):
    path = begun / "compare.json"
    path.write_text(path.read_text().replace('"csv": {', '"mine:data": {'))
    (begun / "sums.json").unlink()
    assert main(["resume", str(begun), "--no-code"]) == 2
    assert "would import mine:data" in capsys.readouterr().err


def test_modules_of_one_name_beside_two_meshes_are_refused(tmp_path):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text("")
        text = MESH.replace("{mlp: {hidden: [8]}}", "'net:Small'")
        (tmp_path / name / f"{name}.yaml").write_text(text, encoding="utf-8")
        made.append(str(tmp_path / name / f"{name}.yaml"))
    both = contenders(made, [], [], [[str(Path(file).parent)] for file in made])
    with pytest.raises(MeshError, match=r"two: agents\.student\.model: net is .* in another mesh"):
        design(both, Asked(seeds=1))


def test_trials_share_the_store_of_the_comparison(tmp_path, monkeypatch):
    """Its folder is that of the command, wherever trials stand; what one teacher said is read by the next."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(MESH.replace("epochs: 2", "epochs: 1"), encoding="utf-8")
    made = contenders(["small.yaml"], [HOT], [], [[]])
    comparison = Comparison(begin(tmp_path / "runs", design(made, Asked(seeds=1, controls=False, store="kept"))[0]))
    orders = [comparison.order(trial) for trial in comparison.design.trials()]
    assert {order.store for order in orders} == {str(tmp_path / "kept")}
    found = []
    for order in orders:
        Experiment(request(order)).run()
        summary = json.loads((Path(order.at) / "summary.json").read_text())
        found.append(summary["store"]["all"])
    assert found[0]["written"] == found[1]["found"] > 0 == found[1]["forwarded"]
    with pytest.raises(MeshError, match="no folder is named"):
        design(made, Asked(seeds=1, controls=False, store=" "))
    assert design(made, Asked(seeds=1, controls=False, store="off"))[0].store == "off"
