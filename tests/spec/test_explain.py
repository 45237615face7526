from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from kdmesh.errors import MeshError
from kdmesh.offers import Config
from kdmesh.spec.elsewhere import elsewhere
from kdmesh.spec.explain import explain
from kdmesh.spec.mesh import MeshSpec
from kdmesh.spec.read import parse
from kdmesh.text.settings import CharactersConfig, TokenizerConfig


def refused(agents=None, **fields):
    with pytest.raises(MeshError) as caught:
        parse({"agents": agents or {"a": None}, **fields}, "m.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("agents", "where", "suggested"),
    [
        ({"a": {"modle": "mlp"}}, "agents.a.modle", "model"),
        ({"a": {"train": {"optimiser": "adam"}}}, "agents.a.train.optimiser", "optimizer"),
        ({"a": {"view": {"augmnt": []}}}, "agents.a.view.augmnt", "augment"),
        ({"a": {"update": {"ema": {"off": "b"}}}}, "agents.a.update.ema.off", "of"),
    ],
)
def test_an_unknown_field_suggests_one_of_the_model_at_its_path(agents, where, suggested):
    error = refused(agents)
    assert (error.where, error.what) == (where, "unknown field")
    assert f"did you mean {suggested!r}?" in error.instead


def test_aliases_are_written_as_in_the_file():
    error = refused(flows=[{"form": "a", "to": "b"}])
    assert error.where == "flows.0.form"
    assert "did you mean 'from'?" in error.instead
    assert "also flows.0.from: is missing" in error.instead
    assert "from_" not in str(error)


@pytest.mark.parametrize(
    ("fields", "where", "what", "instead"),
    [
        ({"seed": -1}, "seed", "found -1", "greater than or equal to 0"),
        ({"task": 3}, "task", "write a name, or one name with its settings", ""),
        ({"train": {"epochs": "x"}}, "train.epochs", "found 'x'", "a whole number (passes over"),
        ({"train": {"drop_last": "x"}}, "train.drop_last", "found 'x'", "true or false"),
        ({"train": {"device": "gpu"}}, "train.device", "found 'gpu'", "text that matches"),
        ({"name": 3}, "name", "found 3", "text (name of"),
        ({"data": {"dataset": "d", "test": "x"}}, "data.test", "found 'x'", "a number (size of the test"),
        ({"flows": [{"from": 3, "to": "a"}]}, "flows.0.from", "found 3", "a list of names (labels"),
        ({"flows": [7]}, "flows.0", "found 7", "{from: ..., to: ...}"),
        ({"connect": [3]}, "connect.0", "write a name, or one name with its settings", ""),
        ({"placement": {"h": "a"}}, "placement.h", "found 'a'", "a list of names"),
        ({"placement": "spred"}, "placement", "found 'spred'", "did you mean 'spread'?"),
    ],
)
def test_a_wrong_value_is_told_with_what_to_write(fields, where, what, instead):
    error = refused(**fields)
    assert error.where == where
    assert error.what.startswith(what)
    assert error.instead.startswith(instead)
    assert "also" not in str(error)


def test_branches_of_a_union_become_one_problem():
    error = refused({"a": {"update": "froze"}})
    assert error.where == "agents.a.update"
    assert error.instead.startswith("did you mean 'frozen'? allowed: frozen, grad, merged or {ema: ...}")
    assert "also" not in str(error)


def test_only_the_branch_that_was_meant_is_told():
    error = refused(flows=[{"from": "a", "to": "b", "weight": {"start": 0, "end": 1}}])
    assert error.where == "flows.0.weight.epochs"
    assert error.what == "is missing"
    assert "also" not in str(error)


def test_a_number_as_a_name_is_to_be_quoted():
    error = refused({1: None})
    assert (error.where, error.instead) == ("agents.1", "put it in quotes: '1'")


@pytest.mark.parametrize(
    "noise", ["literal[", "function-", "EmaUpdate", "AgentSpec", "[key]", "Input should", "pydantic"]
)
def test_no_word_of_pydantic_is_left(noise):
    bad = {"a": {"update": {"ema": 3}}, "b": 7, "c": {"update": 3}, 4: None, "e": {"taps": {"x": 1}}}
    assert noise not in str(refused(bad))


def test_five_problems_are_listed_and_the_rest_counted():
    error = refused({f"a{i}": {"modle": 1} for i in range(8)})
    lines = str(error).splitlines()
    assert lines[0] == "m.yaml: agents.a0.modle: unknown field"
    assert [line.split(":")[0].strip() for line in lines[2:6]] == [f"also agents.a{i}.modle" for i in range(1, 5)]
    assert lines[6:] == ["  and 3 more"]


def test_further_problems_follow_one_that_has_nothing_to_write_instead():
    error = refused(flows=[{"from": "a", "to": "b", "refresh": "never", "sees": "later"}])
    assert error.what.splitlines()[1].startswith("  also flows.0.sees: found 'later'; ")
    assert error.instead == ""


def test_long_values_are_shortened():
    assert len(refused(placement="x" * 500).what) < 80


class Inner(BaseModel):
    rate: Annotated[float, Field(gt=0)] | None = None


class Outer(Config):
    mode: Literal["a", "b"] | int = "a"
    parts: list[Inner] = Field(default_factory=list)


def test_any_model_of_a_plugin_is_explained_under_its_place():
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"mode": [], "parts": [{"rate": "x"}, {"rate": -1}]})
    error = explain(caught.value, Outer, where="connect.0.pairs", file="m.yaml")
    assert error.where == "connect.0.pairs.mode"
    assert error.instead.splitlines() == [
        "allowed: a, b or a whole number",
        "  also connect.0.pairs.parts.0.rate: found 'x'; a number",
        "  also connect.0.pairs.parts.1.rate: found -1; greater than 0",
    ]


def test_a_rule_over_the_whole_model_stands_at_its_place():
    error = refused(program=[{"of": "a", "repeat": 2, "train": "a"}])
    assert error.where == "program.0"
    assert error.what.startswith("`repeat` and `until` belong to a line with `do: [...]`; found {")


def test_what_is_no_mapping_at_all_is_told():
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(3)
    error = explain(caught.value, Outer, where="connect.0.pairs")
    assert (error.where, error.what, error.instead) == ("connect.0.pairs", "found 3", "{mode: ..., parts: ...}")


def test_an_empty_list_and_a_path_of_a_part_that_has_none_are_told_in_plain_words():
    written = {"generated_by": "a", "prompts": "train"}
    error = refused(streams={"new": {**written, "keep": []}})
    assert error.where == "streams.new.keep" and error.instead.startswith("at least 1 of them (")
    assert elsewhere("path", "x", CharactersConfig, None, MeshSpec) == ""  # so many parts of a file have one
    with pytest.raises(ValidationError, match="hub id alone: tokenizer: models/b"):
        TokenizerConfig.model_validate({"path": "models/b"})
