"""The names that a backend takes, the protocol of a host, and the host itself say the same."""

from __future__ import annotations

import ast
import inspect
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

import kdmesh
from kdmesh.backends._base import wait
from kdmesh.backends.inline import Done, InlineBackend
from kdmesh.hosts.host import Host
from kdmesh.hosts.remote import Method, RemoteHost

METHODS = [name for name in vars(RemoteHost) if not name.startswith("_")]


def test_every_method_has_its_name_in_the_list():
    assert list(get_args(Method)) == METHODS
    assert [name for name in vars(Host) if not name.startswith("_")] == METHODS


def test_a_host_takes_the_arguments_of_the_protocol():
    for name in METHODS:
        said, there = (inspect.signature(getattr(kind, name)).parameters for kind in (RemoteHost, Host))
        assert [(one.name, one.kind) for one in said.values()] == [(one.name, one.kind) for one in there.values()], name


def test_the_engine_calls_each_method_and_no_other():
    submitted = set()
    for path in (Path(kdmesh.__file__).parent / "engine").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    ast.Name("submit" | "submit_pair") | ast.Attribute(attr="submit" | "submit_pair"),
                    [_, ast.Attribute(ast.Name("RemoteHost"), name), *_],
                ):
                    submitted.add(name)
    assert submitted == {*METHODS}


class Noting(InlineBackend):
    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        return [host, method, args, results] if results == 1 else ["bundle", "report"]


def test_a_submitted_method_is_called_by_its_name():
    backend = Noting()
    assert backend.submit("host0", RemoteHost.evaluate, "a", "test") == ["host0", "evaluate", ("a", "test"), 1]
    assert backend.submit_pair("host0", RemoteHost.run, None) == ("bundle", "report")
    with pytest.raises(TypeError, match="evaluate: give stream by position"):
        backend.submit("host0", RemoteHost.evaluate, "a", stream="test")


def test_waiting_yields_the_handles_and_returns_what_is_sent():
    waiting = wait(Done(number) for number in (1, 2))
    assert [handle.value for handle in next(waiting)] == [1, 2]
    with pytest.raises(StopIteration) as stop:
        waiting.send([1, 2])
    assert stop.value.value == [1, 2]


def test_mypy_reads_what_it_should_know_of_calls():
    """With the results there, and with the mistakes: it reports an ignored error that is none."""
    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert Path(__file__).with_name("typed_calls.py").relative_to(root).as_posix() in settings["files"]
    assert settings["warn_unused_ignores"]
