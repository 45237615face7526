"""The names that a backend takes, the protocol of a host, and the host itself say the same."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import get_args

import kdmesh
from kdmesh.hosts.host import Host
from kdmesh.hosts.remote import Method, RemoteHost

METHODS = [name for name in vars(RemoteHost) if not name.startswith("_")]


def test_every_method_has_its_name_in_the_list():
    assert list(get_args(Method)) == METHODS
    assert [name for name in vars(Host) if not name.startswith("_")] == METHODS


def test_a_host_takes_the_arguments_of_the_protocol():
    for name in METHODS:
        said, there = (inspect.signature(getattr(kind, name)).parameters for kind in (RemoteHost, Host))
        assert [*said.values()] == [*there.values()], name


def test_the_engine_calls_each_method_and_no_other():
    called = set()
    for path in (Path(kdmesh.__file__).parent / "engine").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).rpartition(".")[2] == "call"
                and len(node.args) > 1
            ):
                called |= {node.args[1].value} if isinstance(node.args[1], ast.Constant) else set()
    assert called | {"export_state"} == {*METHODS}
