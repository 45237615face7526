"""What an author of a plugin is told: the line that failed, and a folder that holds no single files."""

from __future__ import annotations

import pytest

from kdmesh.cli import main
from kdmesh.errors import line_of


def test_the_line_of_foreign_code_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import torch\n\ndef f(x):\n    return torch.nn.Linear(2, 3)(x)\n", encoding="utf-8")
    names = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    import torch

    with pytest.raises(RuntimeError) as raised:
        names["f"](torch.ones(1, 5))
    assert line_of(raised.value) == " (mine.py, line 4)"  # not the line of torch that it was raised in
    assert line_of(ValueError()) == ""


@pytest.mark.parametrize(("file", "said"), [("pyproject.toml", "holds a package"), ("notes.txt", "holds no *.py file")])
def test_a_folder_without_single_files_is_refused(tmp_path, capsys, monkeypatch, file, said):
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", "")
    (tmp_path / file).write_text("", encoding="utf-8")
    assert main(["plan", "council", "--plugins-dir", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
