"""Backends are found by name: what is none is refused where it is written, not taken for another."""

from __future__ import annotations

import pytest

import kdmesh
from kdmesh.backends import Session, make_backend
from kdmesh.errors import MeshError


def mesh():
    made = kdmesh.Mesh(data="digits", train={"epochs": 1})
    made.agent("a", "mlp")
    return made


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Inline", "inline"),
        ("inlien", "inline"),
        ("INLINE", "inline"),
        ("Ray", "ray"),
        ("rya", "ray"),
        ("inline ", "inline"),
    ],
)
def test_another_name_is_refused_with_the_nearest(name, meant):
    for begin in (Session, make_backend, lambda name: mesh().run(backend=name)):
        with pytest.raises(MeshError) as caught:
            begin(name)
        assert (caught.value.what, caught.value.where) == (f"there is no backend {name!r}", "backend")
        assert caught.value.instead == f"did you mean {meant!r}? backends: inline, ray"


@pytest.mark.parametrize("name", ["", "dask", 3, [], {"inline": 1}, b"inline"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(MeshError, match="there is no backend"):
        Session(name)


def test_a_name_is_taken_as_it_is():
    with Session("inline") as session:
        assert session.backend.name == session.name == "inline"
