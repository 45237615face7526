"""The bundled `pate`: it says how its party's account is made, and what the noisy votes teach and cost."""

from __future__ import annotations

from kdmesh.cli import main
from kdmesh.files import read_json
from kdmesh.report.page.blocks import Table, Text
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import save


def test_it_asks_for_an_account_and_teaches_by_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = ("run", "pate", "--backend", "inline", "--no-report", "--out", "runs", "--quiet")
    assert main(run) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "kdmesh ledger new FILE --privacy FOLDER" in said
    assert main(("ledger", "new", "pate", "--privacy", "keys")) == 0
    capsys.readouterr()
    assert main((*run, "--privacy", "keys")) == 0
    line = "clinic, for one sample (replace): answered 60 of gnmax; 7.8463 of epsilon 8 is spent"
    printed = capsys.readouterr().out
    assert f"privacy account of {line}" in " ".join(printed.split()) and max(map(len, printed.splitlines())) <= 80
    (folder,) = (tmp_path / "runs" / "pate").iterdir()
    summary = read_json(folder / "summary.json")
    told = summary["privacy"]["clinic"]
    assert told["answers"] == 60 and 7 < told["exact"] < told["rdp"] < 8 == told["epsilon"]
    for agent in ("student", "teacher[3]"):
        assert line in " ".join((folder / "agents" / agent / "README.md").read_text().split())
    page = page_of(folder)
    (section,) = [one for one in page.sections if one.id == "accounts"]
    assert any(line in "".join(map(str, block.words)) for block in section.blocks if isinstance(block, Text))
    (shown,) = [block for block in section.blocks if isinstance(block, Table)]
    assert shown.rows[0][0] == "gnmax" and len(shown.rows) == 1
    save(folder / "report.html", page)
    assert "Privacy accounts" in (folder / "report.html").read_text()
    assert summary["agents"]["student"]["metrics"]["test"]["accuracy"] > 0.25  # of ten classes, without a label
