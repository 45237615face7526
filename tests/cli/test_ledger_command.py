"""`kdmesh ledger` says what was spent in lines that fit, refuses what was touched, and marks what is private."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from kdmesh.cli import main
from kdmesh.privacy import keys
from kdmesh.privacy.accounting import calibrated, epsilon, rdp
from kdmesh.privacy.ledger import Budget, Ledger, Title, read
from kdmesh.privacy.mechanisms.confident_gnmax import ConfidentGNMax
from kdmesh.privacy.mechanisms.gaussian_probabilities import GaussianProbabilities
from kdmesh.privacy.releasing import Desk


@pytest.fixture
def path(tmp_path):
    """A ledger of votes and probabilities."""
    (tmp_path / "key").write_bytes(bytes(range(32)))  # not of chance, so that neither is the noise
    (tmp_path / "key").chmod(0o600)
    secret = keys.load(tmp_path / "key")
    title = Title("hospital_a", secret.identity, "sample", "replace", Budget(8.0, 1e-5))
    votes = np.random.default_rng(0).multinomial(250, [0.91] + [0.01] * 9, size=60)
    with Ledger(tmp_path / "ledger.jsonl", title) as ledger:
        desk = Desk(ledger, secret, "mesh", "hospital_a", keep_private=True)
        desk.answer(ConfidentGNMax(200, 150.0, 40.0, "sample", "replace"), [f"q{n}" for n in range(60)], votes)
        desk.answer(GaussianProbabilities(9.0, "sample", "replace"), ["row"], np.full((1, 4), 0.25))
    return tmp_path / "ledger.jsonl"


def told(capsys, *words):
    assert main(["ledger", *map(str, words)]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


@pytest.mark.parametrize("width", [80, 200])
def test_the_account_fits_and_says_what_is_left(path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    out = told(capsys, "show", path)
    assert max(map(len, out.splitlines())) <= width
    account = read(path)
    spent = epsilon(rdp(account.answers()), 1e-5)
    words = " ".join(out.split())
    assert f"{spent:.4f} of epsilon 8 is spent, at delta 1e-05, by Renyi divergences: {8 - spent:.4f} is left" in words
    for word in ("hospital_a", "one sample (replace)", "agreement", "gnmax", "gaussian_probabilities", "threshold=200"):
        assert word in words
    assert account.head in out and "PRIVATE" not in out


def test_room_is_for_as_many_as_the_budget_lets_through(path, capsys):
    found = json.loads(told(capsys, "show", path, "--json"))
    account = read(path)
    assert found["left"] == 8 - account.spent() and found["charges"] == 3 and "private" not in found
    for row in found["mechanisms"]:
        assert account.room(row["sensitivity"], row["sigma"], 10**9) == row["more"] > 10
        assert row["exact"] <= row["rdp"] <= found["rdp"]
    quiet = calibrated(8.0, 1e-5, 10**9, 1.0)
    assert account.room(1.0, 2 * quiet, 10**9) == 10**9


def test_what_is_private_is_told_where_asked_for_alone_and_marked(path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = told(capsys, "show", path, "--private")
    assert "PRIVATE: in hindsight epsilon" in out and "of votes of 2 of 3 charges" in " ".join(out.split())
    assert "so it is private itself" in " ".join(out.split()) and max(map(len, out.splitlines())) <= 80
    found = json.loads(told(capsys, "show", path, "--private", "--json"))
    assert 0 < found["private"]["epsilon"] < found["rdp"] and found["private"]["charges"] == 2
    plain = told(capsys, "show", path) + told(capsys, "show", path, "--json") + told(capsys, "verify", path)
    assert f"{found['private']['epsilon']:.4f}" not in plain and "private" not in plain.casefold()


def test_a_ledger_is_proved_or_refused_with_its_line(path, capsys):
    head = read(path).digests[1]
    assert "3 charges, each bound to the line before it" in told(capsys, "verify", path)
    assert read(path).head in told(capsys, "verify", path, "--expect-head", head)
    assert main(["ledger", "verify", str(path), "--expect-head", "0" * 64]) == 2
    assert "ledger.jsonl: line 4: no line up to here has the head" in capsys.readouterr().err
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2].replace('"sigma": 40.0', '"sigma": 90.0'), *lines[3:]]))
    for action in ("verify", "show"):
        assert main(["ledger", action, str(path)]) == 2
        out, err = capsys.readouterr()
        assert "ledger.jsonl: line 4: is not bound to the line before it" in err and not out


def test_a_torn_end_is_told_and_left(path, capsys):
    with path.open("ab") as file:
        file.write(b'{"number": 4, "prev')
    size = path.stat().st_size
    assert "The last 19 bytes are no whole line" in " ".join(told(capsys, "verify", path).split())
    assert "The last 19 bytes are no whole line" in " ".join(told(capsys, "show", path).split())
    assert path.stat().st_size == size


def test_an_empty_account_is_told(tmp_path, capsys):
    with Ledger(tmp_path / "ledger", Title("a", "k", "party", "replace", Budget(0.0, 1e-5))):
        pass
    out = told(capsys, "show", tmp_path / "ledger")
    assert "Ledger of a: protects one party (replace)" in out and "0.0000 of epsilon 0 is spent" in out


def test_help_needs_no_library():
    code = "import sys; from kdmesh.cli import main\ntry: main(['ledger', 'show', '--help'])\n"
    code += "except SystemExit: pass\nprint(sorted({'numpy', 'scipy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "data-dependent" in done.stdout
