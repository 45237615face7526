"""One place says what a task is judged by, and which way is better."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kdmesh.engine.summary import best_teacher
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.report.paired import over_seeds
from kdmesh.spec import MeshSpec
from kdmesh.statistics import paired, verdicts
from kdmesh.tasks import definitions, metric, primary

BITS = metric("bits_per_character")


def planned(**fields):
    made = {"data": "digits", "agents": {"a": {"model": "mlp"}}, **fields}
    return make_plan(MeshSpec.model_validate(made), registry())


@pytest.mark.parametrize("name", registry().names("tasks"))
def test_every_metric_that_a_task_names_is_offered_and_fits_its_labels(name):
    offer = registry().find("tasks", name)
    assert offer.primary in offer.metrics and offer.watched and set(offer.watched) <= set(offer.metrics)
    for metric_name in offer.metrics:
        assert offer.labels in registry().find("metrics", metric_name).labels
    assert primary(name).higher == registry().find("metrics", offer.primary).higher


def test_an_unknown_task_is_told_with_the_one_that_is_meant():
    with pytest.raises(MeshError) as error:
        planned(task="clasification")
    assert (error.value.where, error.value.what) == ("task", "unknown task 'clasification'")
    assert error.value.instead.startswith("did you mean 'classification'? known tasks: classification, ")


@pytest.mark.parametrize(
    ("stopping", "what", "instead"),
    [
        ({"metric": "acuracy"}, "unknown metric 'acuracy'", "did you mean 'accuracy'?"),
        (
            {"metric": "macro_f1"},
            "'macro_f1' is not measured in this mesh of task classification, or is no single number",
            "metrics that it can watch: ",
        ),
    ],
)
def test_early_stopping_watches_what_its_task_allows(stopping, what, instead):
    with pytest.raises(MeshError) as error:
        planned(train={"early_stopping": stopping})
    assert (error.value.where, error.value.what) == ("train.early_stopping.metric", what)
    assert error.value.instead.startswith(instead)


def test_early_stopping_watches_the_task_s_first_metric_and_the_long_form_says_so():
    made = planned(train={"early_stopping": {}}, agents={"a": {"model": "mlp", "train": {"early_stopping": {}}}})
    assert made.train("a").early_stopping.metric == made.resolved().train.early_stopping.metric == "loss"


def test_the_metrics_of_a_mesh_follow_those_of_its_task():
    assert [ref.name for ref in planned().metrics] == ["accuracy", "loss", "ece"]
    with pytest.raises(MeshError, match="unknown metric 'acuracy'"):
        planned(metrics=["acuracy"])
    with pytest.raises(MeshError, match="stands here twice"):
        planned(metrics=["loss", "loss"])


def test_language_models_are_judged_by_bits_of_which_less_is_better():
    by = primary("language_modelling")
    assert (by.name, by.higher) == ("bits_per_character", False)
    assert by.gain(3.3, 3.5) == pytest.approx(0.2) and by.worth(3.3) > by.worth(3.5)
    assert primary("classification").gain(0.9, 0.8) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("task", "figures", "best"),
    [
        ("classification", {"a": {"accuracy": 0.9, "loss": 2.0}, "b": {"accuracy": 0.8, "loss": 0.1}}, "a"),
        ("language_modelling", {"a": {"accuracy": 1, "bits_per_character": 4}, "b": {"bits_per_character": 3}}, "b"),
        ("language_modelling", {"a": {"accuracy": 0.9}, "b": {"accuracy": 0.1, "bits_per_character": 3.3}}, "b"),
        ("classification", {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.5}}, "a"),
        ("classification", {"a": {}, "b": {}}, None),
    ],
)
def test_the_best_teacher_is_best_by_the_task_s_metric_on_validation(task, figures, best):
    spec, by = SimpleNamespace(agents=dict.fromkeys(figures)), registry().find("tasks", task).primary
    plan = SimpleNamespace(primary=by, spec=spec, dropped=frozenset())
    agents = {name: {"validation": found, "test": {"accuracy": 0.0}} for name, found in figures.items()}
    assert best_teacher(plan, agents, dict.fromkeys(figures, "teacher")) == best


def node(bits: float, accuracy: float, role: str) -> dict:
    return {"role": role, "metrics": {"test": {"accuracy": accuracy, "bits_per_character": bits}}}


def language(seed: int, student: float, alone: float, taught: float) -> dict:
    """A summary in which accuracy says the opposite of bits."""
    controls = {
        "alone": node(alone, 1 - student / 10, "")["metrics"],
        "best_teacher": {"teacher": "t", **node(taught, 0.9, "")["metrics"]},
    }
    agents = {"t": node(3.0, 0.9, "teacher"), "s": node(student, 1 - alone / 10, "student")}
    return {
        "task": "language_modelling", "seed": seed, "agents": agents, "best_teacher": "t", "controls": {"s": controls},
    }  # fmt: skip


def test_seeds_and_verdicts_of_language_models_are_of_bits():
    runs = [language(seed, 3.30 + seed / 100, 3.35 + seed / 99, 3.20 + seed / 101) for seed in range(3)]
    found = over_seeds(runs)
    assert (found["metric"], found["higher_is_better"]) == ("bits_per_character", False)
    assert found["bits_per_character"]["s"]["mean"] == pytest.approx(3.31)
    assert found["differences"]["s"]["control alone"]["wins"] == 3  # lower, in every seed
    assert found["controls"]["s"]["alone"]["mean"] == pytest.approx(3.35 + 1 / 99)
    verdicts = {row["against"]: row for row in found["verdicts"]}
    assert {key: row["verdict"] for key, row in verdicts.items()} == {"alone": "better", "best_teacher": "worse"}
    assert all(row["n"] == 3 and row["low"] <= row["mean"] <= row["high"] for row in verdicts.values())
    assert verdicts["alone"]["mean"] < 0 < verdicts["best_teacher"]["mean"]


@pytest.mark.parametrize(
    ("a", "b", "by", "said"),
    [
        ([0.9, 0.91, 0.92], [0.8, 0.8, 0.83], metric("accuracy"), "better"),
        ([0.8, 0.8, 0.83], [0.9, 0.91, 0.92], metric("accuracy"), "worse"),
        ([0.8, 0.8, 0.83], [0.9, 0.91, 0.92], BITS, "better"),
        ([0.9, 0.8], [0.8, 0.81], metric("accuracy"), "no difference shown"),
        ([0.8, 0.8], [0.8, 0.8], metric("accuracy"), "equal in every pair"),
        ([0.9, 0.9], [0.8, 0.8], metric("accuracy"), "no difference shown"),  # alike by chance in 1 of 2
        ([0.9, 0.9] * 3, [0.8, 0.8] * 3, metric("accuracy"), "better"),
        ([0.9], [0.1], metric("accuracy"), None),
    ],
)
def test_a_verdict_is_given_where_chance_is_an_unlikely_reason(a, b, by, said):
    (shown,) = verdicts([paired(a, b, by)], by)
    assert shown["verdict"] == said


def test_figures_of_probabilities_say_that_they_are_at_temperature_1():
    found = definitions([*registry().names("metrics"), "theirs"])
    assert all("temperature 1" in found[name] for name in ("loss", "ece", "bits_per_character", "consensus"))
    assert found.keys() >= {"accuracy", "agreement", "best_teacher", "half_width"} and "theirs" not in found
