from __future__ import annotations

import pytest

import kdmesh


def test_a_mesh_draws_itself(tmp_path):
    mesh = kdmesh.Mesh()
    mesh.agent("teacher", update="frozen")
    mesh.agent("student")
    mesh.connect("ensemble", teachers="teacher", student="student")
    text = mesh.draw()
    assert "frozen teacher" in text and "teacher ──▶ student" in text
    assert mesh.draw(tmp_path / "a.svg") == (tmp_path / "a.svg").read_text(encoding="utf-8")
    with pytest.raises(kdmesh.MeshError, match=r"path: .*names no format"):
        mesh.draw(tmp_path / "a.jpg")
