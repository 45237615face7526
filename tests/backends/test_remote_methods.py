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
        assert [(one.name, one.kind) for one in said.values()] == [(one.name, one.kind) for one in there.values()], name


def test_the_engine_calls_each_method_and_no_other():
    called = set()
    for path in (Path(kdmesh.__file__).parent / "engine").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(ast.Name("call") | ast.Attribute(attr="call"), [_, ast.Constant(name), *_]):
                    called.add(name)
    assert called == {*METHODS}
