"""A ledger says what was spent, refuses more, and shows where it was touched."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh import files
from kdmesh.errors import MeshError
from kdmesh.privacy import keys
from kdmesh.privacy.accounting import Gaussian, epsilon, rdp
from kdmesh.privacy.ledger import Budget, Charge, Ledger, Title, read
from kdmesh.privacy.mechanisms.confident_gnmax import ConfidentGNMax
from kdmesh.privacy.mechanisms.gaussian_probabilities import GaussianProbabilities
from kdmesh.privacy.notes import private_epsilon
from kdmesh.privacy.releasing import Desk
from kdmesh.privacy.summary import summary

TITLE = Title("hospital_a", "a key", "sample", "replace", Budget(8.0, 1e-5))


def charge(*names, sigma=40.0, tag="t", mesh="mesh", **settings):
    return Charge("gnmax", settings, 2**0.5, sigma, "hospital_a", mesh, dict.fromkeys(names, tag))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def filled(path):
    """A ledger of four charges, closed, and the heads that were told."""
    with Ledger(path, TITLE) as ledger:
        heads = [ledger.charge(charge(f"q{n}", f"r{n}"), now=1e9 - n).head for n in range(4)]
    return path, heads


def test_a_charge_says_all_that_is_needed_to_count_it(filled):
    path, heads = filled
    first, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["budget"] == {"epsilon": 8.0, "delta": 1e-5} and first["party"] == "hospital_a"
    assert [line["number"] for line in lines] == [1, 2, 3, 4]
    assert lines[0] == {
        "number": 1, "previous": lines[0]["previous"], "time": "2001-09-09T01:46:40Z", "mechanism": "gnmax",
        "settings": {}, "sensitivity": 2**0.5, "sigma": 40.0, "noise_by": "hospital_a", "mesh": "mesh",
        "queries": {"q0": "t", "r0": "t"}, "count": 2, "unit": "sample", "adjacency": "replace", "delta": 1e-5,
        "rate": 1.0,
    }  # fmt: skip
    account = read(path)
    assert account.head == heads[-1] and account.digests[1:] == heads
    assert account.spent() == epsilon(rdp([Gaussian(2**0.5, 40.0, 8)]), 1e-5)
    assert account.lines[0].time > account.lines[3].time  # clocks jump; numbers do not


def test_what_was_paid_for_costs_nothing_again(filled):
    path, heads = filled
    size = path.stat().st_size
    with Ledger(path, TITLE) as ledger:
        again = ledger.charge(charge("r2", "q0"))
        assert again.number is None and set(again.again) == {"r2", "q0"} and again.head == heads[-1]
        assert path.stat().st_size == size
        some = ledger.charge(charge("q0", "new"))
        assert (some.number, some.new, some.again) == (5, ("new",), ("q0",))
        assert ledger.account.lines[-1].charge.answers.count == 1
        for other in (charge("q0", sigma=41.0), charge("q0", mesh="mesh2"), charge("q0", threshold=3.0)):
            assert ledger.charge(other).new == ("q0",)


def test_a_query_of_one_name_has_one_content(filled):
    with Ledger(filled[0], TITLE) as ledger:
        before = ledger.account.spent()
        with pytest.raises(MeshError, match="query 'q1' of mesh 'mesh' was answered of other values"):
            ledger.charge(charge("new", "q1", tag="u"))
        assert ledger.account.spent() == before and ledger.charge(charge("new")).new == ("new",)


def test_the_answer_that_would_exceed_the_budget_is_refused(path):
    small = Title("a", "k", "sample", "replace", Budget(1.0, 1e-5))
    with Ledger(path, small) as ledger:
        names = [f"q{n}" for n in range(100)]
        with pytest.raises(
            MeshError, match=r"epsilon 0 of 1 is spent .* and 100 answers of gnmax .*\n.*at most (\d+) of"
        ) as error:
            ledger.charge(charge(*names))
        fit = int(str(error.value).split("at most ")[1].split()[0])
        assert not ledger.account.lines
        ledger.charge(charge(*names[:fit]))
        assert ledger.account.spent() <= 1.0 < ledger.account.spent([Gaussian(2**0.5, 40.0, 1)])
        with pytest.raises(MeshError, match="nothing more of these: it is spent"):
            ledger.charge(charge("one more"))
        assert ledger.charge(charge(names[0])).number is None  # what was paid for still is
        assert ledger.charge(charge("cheap", sigma=1e6)).number == 2


@pytest.mark.parametrize("budget", [Budget(0, 1e-5), Budget(8.0, 0), Budget(0.0, 0.0)])
def test_a_budget_of_zero_refuses_everything(path, budget):
    with Ledger(path, Title("a", "k", "party", "replace", budget)) as ledger, pytest.raises(MeshError, match="budget"):
        ledger.charge(charge("q", sigma=1e8))
    assert not read(path).lines


def test_an_edit_a_line_removed_or_moved_is_refused_with_its_place(filled):
    path, _ = filled
    lines = path.read_text().splitlines(keepends=True)
    changes = {
        "edit": ([*lines[:2], lines[2].replace("40.0", "90.0"), *lines[3:]], 4, "not bound to the line before it"),
        "edit of the last": ([*lines[:4], lines[4].replace("40.0", "90.0")], 5, "is not the line that was written"),
        "edit of the first": ([lines[0].replace("8.0", "80.0"), *lines[1:]], 2, "not bound to the line before it"),
        "removed": ([*lines[:2], *lines[3:]], 3, "is numbered 3, not 2: lines were removed or moved"),
        "the first removed": (lines[1:], 1, "is numbered 1, not 0"),
        "moved": ([*lines[:2], lines[3], lines[2], lines[4]], 3, "is numbered 3, not 2"),
        "twice": ([*lines[:3], lines[2], *lines[3:]], 4, "is numbered 2, not 3"),
        "rolled back": (lines[:4], 4, "ends here, but line 5 was there: it was rolled back"),
        "cut": ([*lines[:4], lines[4][:-20]], 4, "ends here, but line 5 was there: it was rolled back"),
        "without its end": ([*lines[:4], lines[4][:-1]], 4, "ends here, but line 5 was there"),
        "no JSON": ([*lines[:2], "{\n", *lines[3:]], 3, "is no JSON object"),
        "null": ([*lines[:2], "null\n", *lines[3:]], 3, "is no JSON object"),
    }
    for name, (content, number, said) in changes.items():
        path.write_text("".join(content))
        for way in (lambda: read(path), lambda: Ledger(path, TITLE)):
            with pytest.raises(MeshError) as error:
                way()
            assert error.value.file == str(path) and error.value.where == f"line {number}", name
            assert said in error.value.what, name
        assert path.read_text() == "".join(content), name  # evidence stays as it is
    path.write_text("".join(lines))
    assert len(read(path).lines) == 4


def test_every_change_of_a_single_byte_is_refused(filled):
    path, _ = filled
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(MeshError):
            read(path)


def test_a_rolled_back_head_is_refused_and_a_remembered_one_finds_both_rolled_back(filled, tmp_path):
    path, heads = filled
    head = tmp_path / "ledger.jsonl.head"
    now = head.read_text()
    head.write_text(json.dumps({"number": 2, "digest": heads[1]}))
    with pytest.raises(MeshError, match=r"ledger.jsonl.head: is of line 3, but there are 5: it was rolled back"):
        read(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))  # both
    assert len(read(path).lines) == 2 and len(read(path, heads[0]).lines) == 2
    for way in (lambda: read(path, heads[3]), lambda: Ledger(path, TITLE, heads[3])):
        with pytest.raises(MeshError, match="line 3: no line up to here has the head") as error:
            way()
        assert error.value.file == str(path)
    for content in ("", "{}", '{"number": -1, "digest": "a"}', "[]"):
        head.write_text(content)
        with pytest.raises(MeshError, match="is no head of a ledger"):
            read(path)
    head.unlink()
    with pytest.raises(MeshError, match=r"ledger.jsonl.head: is gone, but there are 2 charges"):
        read(path)
    head.write_text(now)
    path.unlink()
    for way in (lambda: read(path), lambda: Ledger(path, TITLE)):
        with pytest.raises(MeshError, match="is gone, but its head is there"):
            way()


def test_in_the_folder_of_a_party_the_ledger_is_named(tmp_path):
    with Ledger(tmp_path / "ledger", TITLE), pytest.raises(MeshError) as error:
        read(tmp_path)
    assert error.value.instead == str(tmp_path / "ledger")


def test_who_finds_another_at_it_waits(path, monkeypatch):
    """Two runs may charge at one time."""
    tries, lock = iter([False, False]), files.lock
    monkeypatch.setattr(files, "lock", lambda file: next(tries, True) and lock(file))
    with Ledger(path, TITLE) as ledger:
        assert ledger.charge(charge("q")).number == 1 and next(tries, True)


def test_one_process_at_a_time_writes(path, monkeypatch):
    monkeypatch.setattr("kdmesh.privacy.ledger.PATIENCE", 0)
    with Ledger(path, TITLE) as ledger:
        ledger.charge(charge("q"))
        with pytest.raises(MeshError, match="is in use by another process"):
            Ledger(path, TITLE)
        code = "import sys; from pathlib import Path; from kdmesh.privacy.ledger import *\n"
        code += "import kdmesh.privacy.ledger as module; module.PATIENCE = 0\n"
        code += "Ledger(Path(sys.argv[1]), Title('hospital_a', 'a key', 'sample', 'replace', Budget(8.0, 1e-5)))"
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
        assert done.returncode and "is in use by another process" in done.stderr
        assert len(read(path).lines) == 1  # to look is allowed
    with Ledger(path, TITLE) as ledger:
        with path.open("ab") as file:
            file.write(b"{}\n")
        with pytest.raises(MeshError, match="was written by another process"):
            ledger.charge(charge("r"))
        with pytest.raises(MeshError, match="is closed"):
            ledger.charge(charge("r"))


def test_who_reads_while_another_process_writes_sees_no_roll_back(filled, monkeypatch):
    path, _ = filled
    opened, names = files.opened, iter(range(100))
    with Ledger(path, TITLE) as ledger:

        def written_meanwhile(where, *rest):
            if where == path:
                for _ in range(3):
                    ledger.charge(charge(f"before {next(names)}"))
            file = opened(where, *rest)
            if where == path:
                content = file.read()
                for _ in range(3):
                    ledger.charge(charge(f"after {next(names)}"))
                file = BytesIO(content)
            return file

        with monkeypatch.context() as patch:
            patch.setattr(files, "opened", written_meanwhile)
            assert len(read(path).lines) == 4 + 3
        assert len(read(path).lines) == 4 + 6


def test_threads_of_one_process_take_turns(path):
    with Ledger(path, TITLE) as ledger, ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda n: ledger.charge(charge(f"q{n % 20}")).number, range(60)))
    assert sorted(number for number in told if number is not None) == list(range(1, 21))
    assert len(read(path).lines) == 20


def test_a_fork_of_the_process_may_not_write_it(path):
    with Ledger(path, TITLE) as ledger:
        ledger._process += 1
        with pytest.raises(MeshError, match="was opened by another process"):
            ledger.charge(charge("q"))


OPS = st.lists(
    st.one_of(
        st.tuples(st.just("charge"), st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True),
                  st.sampled_from([20.0, 40.0, 90.0])),
        st.tuples(st.just("other content"), st.sampled_from("abcdefgh"), st.sampled_from([20.0, 40.0, 90.0])),
        st.tuples(st.just("open anew")),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=25)
@given(OPS, st.sampled_from([0.0, 0.3, 0.8, 8.0]), st.randoms())
def test_whatever_is_asked_the_account_is_that_of_the_distinct_answers(ops, budget, chance):
    """Beside a model: a set of what was answered, whose cost, in any order, is what the ledger says, and never more."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        path, title = Path(folder, "ledger"), Title("a", "k", "sample", "replace", Budget(budget, 1e-5))
        ledger, paid = Ledger(path, title), set()
        for what, *rest in ops:
            if what == "open anew":
                ledger.close()
                ledger = Ledger(path, title, ledger.account.head)
            elif what == "charge":
                names, sigma = rest
                after = paid | {(name, sigma) for name in names}
                fits = after == paid or (budget > 0 and cost(after) <= budget)
                try:
                    ledger.charge(charge(*names, sigma=sigma))
                    assert fits
                    paid = after
                except MeshError as error:
                    assert not fits and error.where == "budget"
            elif (rest[0], rest[1]) in paid:
                with pytest.raises(MeshError, match="of other values"):
                    ledger.charge(charge(rest[0], sigma=rest[1], tag="another"))
        ledger.close()
        mixed = sorted(paid)
        chance.shuffle(mixed)
        assert read(path).spent() == cost(mixed) <= budget
        assert sorted(paid) == sorted(
            (one, line.charge.sigma) for line in read(path).lines for one in line.charge.queries
        )


def cost(paid):
    return epsilon(rdp([Gaussian(2**0.5, sigma) for _, sigma in paid]), 1e-5)


def test_a_ledger_counts_for_one_party_secret_unit_and_budget(filled):
    for name, other in (
        ("party", Title("b", "a key", "sample", "replace", TITLE.budget)),
        ("key", Title("hospital_a", "b", "sample", "replace", TITLE.budget)),
        ("unit", Title("hospital_a", "a key", "party", "replace", TITLE.budget)),
        ("adjacency", Title("hospital_a", "a key", "sample", "add_remove", TITLE.budget)),
        ("budget", Title("hospital_a", "a key", "sample", "replace", Budget(9.0, 1e-5))),
    ):
        with pytest.raises(MeshError, match=f"{name}: was begun with"):
            Ledger(filled[0], other)
    with Ledger(filled[0], TITLE) as ledger, pytest.raises(TypeError, match="neither pickled nor copied"):
        pickle.dumps(ledger)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Budget(-1.0, 1e-5), lambda: Budget(float("nan"), 1e-5), lambda: Budget(1.0, 1.0),
        lambda: Title("", "k", "sample", "replace", TITLE.budget),
        lambda: Title("a", "k", "row", "replace", TITLE.budget),
        lambda: Title("a", "k", "sample", "swap", TITLE.budget),
    ],
)  # fmt: skip
def test_what_no_ledger_counts_is_refused(make):
    with pytest.raises(MeshError, match="is "):
        make()


def test_a_disk_that_fails_closes_the_ledger_until_it_is_read_anew(path, monkeypatch):
    with Ledger(path, TITLE) as ledger:
        ledger.charge(charge("q0"))

        def broken(number):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            with pytest.raises(OSError, match="Input/output"):
                ledger.charge(charge("q1"))
        with pytest.raises(MeshError, match="is closed"):
            ledger.charge(charge("q2"))
    assert len(read(path).lines) == 2  # it may be on the disk, so it counts
    with Ledger(path, TITLE) as ledger:
        assert ledger.charge(charge("q1")).number is None


@pytest.fixture
def secret(tmp_path):
    (tmp_path / "key").write_bytes(bytes(range(32)))  # not of chance, so that neither is the noise
    (tmp_path / "key").chmod(0o600)
    secret = keys.load(tmp_path / "key")
    return secret


def test_answers_are_charged_before_they_are_made_and_replayed_for_nothing(path, secret, monkeypatch):
    votes = np.random.default_rng(0).multinomial(250, [0.91] + [0.01] * 9, size=60)
    votes[::3] = 25
    names, mechanism = [f"q{n}" for n in range(60)], ConfidentGNMax(200, 50.0, 40.0, "sample", "replace")
    title = Title("a", secret.identity, "sample", "replace", Budget(8.0, 1e-5))
    noise, on_disk = keys.Secret.noise, []

    def watched(*args):
        on_disk.append([line.charge.mechanism for line in read(path).lines])
        return noise(*args)

    monkeypatch.setattr(keys.Secret, "noise", watched)
    with Ledger(path, title) as ledger:
        desk = Desk(ledger, secret, "mesh", "a", keep_private=True)
        answers = desk.answer(mechanism, names, votes)
        assert on_disk == [["agreement"], ["agreement", "gnmax"]]
        answered = int((answers >= 0).sum())
        assert 10 < answered < 60 and (answers[::3] == -1).mean() > 0.8 and set(answers) <= {-1, 0}
        spent = ledger.account.spent()
        assert ledger.account.answers() == [Gaussian(1.0, 50.0, 60), Gaussian(2**0.5, 40.0, answered)]
    with Ledger(path, title) as ledger:
        desk = Desk(ledger, secret, "mesh", "a")
        turned = desk.answer(mechanism, names[::-1], votes[::-1])
        assert (turned[::-1] == answers).all() and ledger.account.spent() == spent
        with pytest.raises(MeshError, match="was answered of other values"):
            desk.answer(mechanism, ["q0"], votes[:1] + 1)
    private, known = private_epsilon(read(path))
    assert known == 2 and private < spent
    (path.parent / "ledger.jsonl.private").unlink()
    assert private_epsilon(read(path)) == (spent, 0)


def test_no_answer_without_its_secret_unit_and_names(path, secret):
    rows = np.full((2, 4), 0.25)
    mechanism = GaussianProbabilities(5.0, "sample", "replace")
    with Ledger(path, Title("a", secret.identity, "sample", "replace", Budget(8.0, 1e-5))) as ledger:
        with pytest.raises(MeshError, match="key: is of the secret"):
            Desk(ledger, keys.Secret(b"o" * 32), "mesh", "a")
        desk = Desk(ledger, secret, "mesh", "a")
        with pytest.raises(MeshError, match="gaussian_probabilities: unit: party"):
            desk.answer(GaussianProbabilities(5.0, "party", "replace"), ["q", "r"], rows)
        for names in (["q"], ["q", "q"], ["q", "r", "s"]):
            with pytest.raises(MeshError, match="an id of its own for each row"):
                desk.answer(mechanism, names, rows)
        assert not ledger.account.lines
        assert desk.answer(mechanism, ["q", "r"], rows).shape == (2, 4)
    shutil.copy(path, path.with_name("copy"))
    with pytest.raises(MeshError, match=r"copy\.head: is gone"):
        read(path.with_name("copy"))


def test_samples_that_are_drawn_by_chance_cost_less_and_only_where_their_account_holds(path):
    steps = Charge("dp_sgd", {}, 1.0, 1.0, "hospital_a", "mesh", {f"step {n}": "" for n in range(1000)}, rate=0.01)
    with (
        Ledger(path, TITLE) as ledger,
        pytest.raises(MeshError, match=r"(?s)rate: dp_sgd draws.*adjacency: zero_out"),
    ):
        ledger.charge(steps)
    other = path.with_name("other.jsonl")
    with Ledger(other, replace(TITLE, adjacency="zero_out")) as ledger:
        assert ledger.charge(steps).number == 1 and ledger.charge(steps).number is None
    account = read(other)
    assert account.spent() == pytest.approx(2.10137, abs=5e-6)
    found = summary(account)
    assert found["mechanisms"][0]["rate"] == 0.01 and found["mechanisms"][0]["exact"] is found["exact"] is None
    assert account.room(1.0, 1.0, 10**6, 0.01) == found["mechanisms"][0]["more"]
