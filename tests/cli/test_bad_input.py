"""Wrong input ends in exit code 2 and one message: the file, the path in it, what to write; before Ray is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kdmesh.cli import main

SHORT = """
data: digits
agents: {t1: {model: mlp}, t2: {model: mlp}, student: {model: mlp}}
connect:
  - ensemble: {teachers: [t1, t2], student: student, consensus: mean, objective: {kl: {temperature: 4}}}
"""
LONG = """
data: digits
agents: {t: {model: mlp}, s: {model: mlp}}
flows:
  - {from: labels, to: [t, s], objective: ce}
  - {from: t, to: s, objective: kl}
"""
TWO_READERS = """
data: digits
agents: {t1: {model: mlp}, t2: {model: mlp}, a: {model: mlp}, b: {model: mlp}}
consensus: {c: mean}
flows:
  - {from: labels, to: [t1, t2], objective: ce}
  - {from: [t1, t2], to: c}
  - {from: c, to: a, objective: {kl: {temperature: 2}}}
  - {from: c, to: b, objective: {kl: {temperature: 4}}}
"""
TWO_WEIGHTS = """
data: digits
agents: {t: {model: mlp}, s: {model: mlp}}
connect:
  - ensemble: {teachers: t, student: s, labels: 0.5}
  - mutual: {peers: [t, s], labels: 1.0}
"""
SHARED = """
data: digits
agents: {t: {model: mlp}, s: {weights_of: t}}
flows: [{from: labels, to: [t, s], objective: ce}]
placement: {left: [t], right: [s]}
"""
UNTAUGHT = """
data: digits
agents: {t: {model: mlp}, student: {model: mlp}}
flows: [{from: labels, to: t, objective: ce}]
"""
APART = "placement: {left: [t], right: [s]}\n"


def changed(text, *pairs):
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def csv(name, **more):
    settings = "".join(f", {key}: {value}" for key, value in more.items())
    return changed(LONG, ("data: digits", f"data: {{dataset: {{csv: {{path: {name}, label: y{settings}}}}}}}"))


CASES = {
    "unknown field": (
        changed(SHORT, ("agents:", "agnets:")), "agnets", "unknown field", "did you mean 'agents'?",
    ),
    "unknown field of a strategy": (
        changed(SHORT, ("student: student,", "studnet: student,")),
        "connect.0.ensemble.studnet", "unknown field", "did you mean 'student'?",
    ),
    "unknown field of an objective": (
        changed(LONG, ("kl}", "{kl: {temprature: 4}}}")),
        "flows.1.objective.kl.temprature", "unknown field", "did you mean 'temperature'?",
    ),
    "unknown field of a model": (
        changed(LONG, ("s: {model: mlp}", "s: {model: {mlp: {hiden: [8]}}}")),
        "agents.s.model.mlp.hiden", "unknown field", "did you mean 'hidden'?",
    ),
    "unknown strategy": (
        changed(SHORT, ("ensemble:", "ensembel:")),
        "connect.0", "unknown strategy 'ensembel'", "did you mean 'ensemble'?",
    ),
    "unknown agent": (
        changed(SHORT, ("[t1, t2]", "[t1, t22]")),
        "connect.0.ensemble.teachers", "unknown agent 't22'", "did you mean 't2'?",
    ),
    "unknown consensus": (
        changed(SHORT, ("consensus: mean", "consensus: meen")),
        "connect.0.ensemble.consensus", "unknown consensus rule 'meen'", "did you mean 'mean'?",
    ),
    "unknown consensus in the long form": (
        changed(TWO_READERS, ("{c: mean}", "{c: medain}")),
        "consensus.c.rule", "unknown consensus rule 'medain'", "did you mean 'median'?",
    ),
    "unknown objective": (
        changed(SHORT, ("{kl:", "{kll:")),
        "connect.0.ensemble.objective", "unknown objective 'kll'", "did you mean 'kl'?",
    ),
    "unknown objective in the long form": (
        changed(LONG, ("objective: kl", "objective: kll")),
        "flows.1.objective", "unknown objective 'kll'", "did you mean 'kl'?",
    ),
    "wrong type": (
        SHORT + "train: {epochs: many}\n", "train.epochs", "found 'many'", "a whole number",
    ),
    "wrong type in a strategy": (
        changed(SHORT, ("temperature: 4", "temperature: hot")),
        "connect.0.ensemble.objective.kl.temperature", "found 'hot'", "a number",
    ),
    "wrong type of an optimiser's argument": (
        LONG + "train: {optimizer: {adam: {lr: big}}}\n", "train.optimizer.adam.lr", "lr of Adam is 'big'", "a number",
    ),
    "flow from an unknown agent": (
        changed(LONG, ("from: t,", "from: tt,")),
        "flows.1.from", "unknown agent or consensus 'tt'", "did you mean 't'?",
    ),
    "flow to an unknown agent": (
        changed(LONG, ("to: s,", "to: ss,")), "flows.1.to", "unknown agent or consensus 'ss'", "did you mean 's'?",
    ),
    "label spaces that differ": (
        changed(LONG, ("s: {model: mlp}", "s: {model: mlp, labels: [0, 1]}")),
        "flows.1", "label spaces differ: t knows all classes, s classes [0, 1]", "the same `labels`",
    ),
    "label spaces that differ in the short form": (
        changed(SHORT, ("student: {model: mlp}", "student: {model: mlp, labels: [0, 1]}")),
        "connect.0.ensemble", "label spaces differ", "the same `labels`",
    ),
    "a tap that does not exist": (
        changed(LONG, ("objective: kl", "objective: hint, tap: layers.9")),
        "flows.1.tap", "no layer 'layers.9' in this model", "did you mean 'layers.0'?",
    ),
    "a named tap that does not exist": (
        changed(LONG, ("s: {model: mlp}", "s: {model: mlp, taps: {mid: layer.0}}")),
        "agents.s.taps.mid", "no layer 'layer.0' in this model", "did you mean 'layers.0'?",
    ),
    "a student that nothing teaches": (
        UNTAUGHT, "agents.student", "nothing teaches this agent and no label trains it", "add a flow to it",
    ),
    "once inside a stage": (
        LONG + "  - {from: s, to: t, objective: kl, refresh: once}\n",
        "flows.2.refresh", "once inside a stage: s -> t", "step, epoch or round",
    ),
    "a cycle within a step": (
        changed(LONG, ("kl}", "kl, refresh: step, sees: after}"))
        + "  - {from: s, to: t, objective: kl, refresh: step, sees: after}\n",
        "flows", "cycle within a step: u.t -> f+.t -> u.s -> f+.s -> u.t", "sees: before",
    ),
    "shared weights on two hosts": (
        SHARED, "placement", "t, s must share a host, since they share the weights of t", "put them on one host",
    ),
    "`detach: false` between two hosts": (
        changed(LONG, ("kl}", "kl, refresh: step, detach: false}")) + APART,
        "placement", "t, s must share a host, since gradients pass through t -> s", "put them on one host",
    ),
    "two strategies that want different label weights": (
        TWO_WEIGHTS, "connect.1.mutual", "with weight 1.0 here, but with weight 0.5 in connect.0.ensemble",
        "give both the same `labels`",
    ),
    "readers with different temperatures": (
        TWO_READERS, "consensus.c", "readers of one consensus want different temperatures: 2, 4", "one temperature",
    ),
    "a private stream that would cross": (
        changed(LONG, ("data: digits", "data: digits\nstreams: {own: {private: true}}"), ("kl}", "kl, stream: own}"))
        + APART,
        "flows.1", "stream 'own' is private, but t -> s would carry signals", "teach on a stream that is not private",
    ),
    "a missing data file": (
        csv("absent.csv"), "data.dataset.csv.path", "no file", "a path from the mesh file's folder",
    ),
    "a malformed data file": (
        csv("malformed.csv"), "data.dataset.csv.path", "column 'b', line 3: 'x' is not a finite number",
        "a number in every row",
    ),
    "a label out of range": (
        csv("range.csv", classes=2),
        "data.dataset.csv.path", "label 5 is beyond the 2 classes", "labels 0 .. classes - 1",
    ),
    "an empty split": (
        changed(SHORT, ("data: digits", "data: {dataset: digits, validation: 0.0001}")),
        "data.validation", "0.0001 of 1438 samples is none", "a larger share, or 0 for none",
    ),
    "a split that leaves nothing to train on": (
        changed(SHORT, ("data: digits", "data: {dataset: digits, test: 1000, validation: 797}")),
        "data.train", "nothing of 1797 samples remains for training", "smaller test, validation or transfer splits",
    ),
    "a transfer split that is not there": (
        changed(LONG, ("kl}", "kl, stream: transfer}")),
        "data.transfer", "the transfer split, which is empty", "transfer: 0.3",
    ),
    "a batch above the data, of which only full ones count": (
        LONG + "train: {batch_size: 5000, drop_last: true}\n",
        "train.drop_last", "1294 samples make no full batch of 5000", "a batch_size of at most 1294",
    ),
    "a model that cannot be imported": (
        changed(LONG, ("s: {model: mlp}", "s: {model: 'nowhere:Net'}")),
        "agents.s.model", "cannot import 'nowhere:Net'", "package.module:Thing",
    ),
    "a model that cannot be built": (
        changed(LONG, ("s: {model: mlp}", "s: {model: {'torch.nn:Linear': {width: 1}}}")),
        "agents.s.model", "the model cannot be built: TypeError", "settings that its class takes",
    ),
    "a model for other data": (
        changed(LONG, ("s: {model: mlp}", "s: {model: {'torch.nn:Linear': {in_features: 3, out_features: 2}}}")),
        "agents.s.model", "the model cannot forward samples of shape (1, 8, 8)", "a model for this data's shape",
    ),
    "a missing weights file": (
        changed(LONG, ("s: {model: mlp}", "s: {model: mlp, weights: absent.safetensors}")),
        "agents.s.weights", "cannot read weights", "a safetensors file",
    ),
    "no mapping": ("- a\n", "", "holds a list, not a mesh", "agents: {...}"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "malformed.csv").write_text("a,b,y\n1,2,0\n1,x,1\n", encoding="utf-8")
    (tmp_path / "range.csv").write_text("a,b,y\n" + "1,2,0\n" * 99 + "1,3,5\n", encoding="utf-8")
    return tmp_path


def refusal(argv, capsys):
    """Run a command that must refuse; returns its message without the prefix."""
    assert main(argv) == 2
    out, said = capsys.readouterr()
    assert "Traceback" not in said + out
    assert said.startswith("kdmesh: error: ") and said.count("kdmesh: error") == 1
    return said.removeprefix("kdmesh: error: ")


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_told_with_its_file_its_path_and_what_to_write(name, folder, capsys):
    text, where, what, instead = CASES[name]
    mesh = folder / "wrong.yaml"
    mesh.write_text(text, encoding="utf-8")
    said = refusal(["run", str(mesh), "--out", str(folder / "runs")], capsys)
    first, _, rest = said.partition("\n  instead: ")
    assert first.startswith(f"{mesh}: {where}: " if where else f"{mesh}: ")
    assert what in first
    assert instead in rest
    assert not (folder / "runs").exists()  # nothing was started


def test_yaml_that_cannot_be_read_is_told_with_its_line(folder, capsys):
    mesh = folder / "wrong.yaml"
    mesh.write_text("agents: [\n", encoding="utf-8")
    assert refusal(["run", str(mesh)], capsys).startswith(f"{mesh}: line 2, column 1: ")


def test_a_wrong_override_is_told_with_its_path(folder, capsys):
    mesh = folder / "right.yaml"
    mesh.write_text(LONG, encoding="utf-8")
    said = refusal(["check", str(mesh), "--set", "train.epoch=3"], capsys)
    assert said.startswith(f"{mesh}: train.epoch: unknown field") and "did you mean 'epochs'?" in said


def test_an_unknown_file_suggests_the_nearest_bundled_mesh(capsys):
    said = refusal(["run", "ensembel"], capsys)
    assert said.startswith("ensembel: no such file") and "did you mean 'ensemble'?" in said


PROBE = """
import sys
from kdmesh.cli import main
code = main(sys.argv[1:])
print(sorted({"torch", "ray"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize(("name", "imported"), [("a cycle within a step", "[]"), ("an empty split", "['torch']")])
def test_wrong_input_is_refused_before_ray_is_imported(name, imported, folder):
    mesh = folder / "wrong.yaml"
    mesh.write_text(CASES[name][0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "run", str(mesh)], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.strip() == imported
    assert done.stderr.startswith(f"kdmesh: error: {mesh}: {CASES[name][1]}: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--progress-timeout", "--checkpoint-seconds"])
@pytest.mark.parametrize("value", ["nan", "-1", "inf", "1e999", "soon", ""])
def test_a_span_of_time_is_a_number_of_seconds(option, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "single-teacher", f"{option}={value}"])
    assert stopped.value.code == 2 and option in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://[bad/x", "nosuch://x", "s3://[::", "://", "file://\0x"])
@pytest.mark.parametrize("command", [["run", "single-teacher", "--out"], ["resume"]])
def test_a_url_that_is_none_is_refused(command, url, capsys):
    assert main([*command, url]) == 2
    assert "Traceback" not in (said := capsys.readouterr().err) and said.startswith("kdmesh: error: ")
