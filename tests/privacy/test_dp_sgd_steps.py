"""Steps of DP-SGD: clipped to the bit, charged before they are released, and after a kill the same or refused."""

from __future__ import annotations

import math
import os
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.privacy import keys
from kdmesh.privacy.ledger import Budget, Ledger, Title, read
from kdmesh.privacy.mechanisms.dp_sgd import DPSGD
from kdmesh.privacy.steps import BLOCK, Charged, Rehearsed

SECRET = keys.Secret(bytes(range(32)))
TITLE = Title("a", SECRET.identity, "sample", "zero_out", Budget(8.0, 1e-5))


def steps(folder, *, secret=SECRET, agent="one", mesh="m", title=TITLE, multiplier=1.0, rate=0.05):
    return Charged(
        *(secret, DPSGD(0.5, multiplier, rate), mesh, agent),
        folder=folder, ledger=lambda: Ledger(folder / "ledger", title), noise_by="a",
    )  # fmt: skip


def charged(folder):
    return sum(one.count for one in read(folder / "ledger").answers())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.floats(1e-3, 1e3), st.randoms())
def test_a_sum_of_clipped_gradients_is_that_of_a_plain_loop(rows, widths, scale, random):
    made = np.random.default_rng(random.getrandbits(32))
    parts = [(made.normal(size=(rows, width)) * scale).astype(np.float32) for width in widths]
    mechanism = DPSGD(0.5, 1.1, 0.1)
    total = mechanism.value(mechanism.sum(parts), 1.0)
    plain = np.zeros(sum(widths))
    for row in range(rows):
        one = np.concatenate([part[row].astype(np.float64) for part in parts])
        plain += one * min(1.0, 0.5 / np.linalg.norm(one))
    assert np.abs(total - plain).max() <= rows * (2.0**-mechanism.digits + 1e-6 * 0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.floats(-30, 30), st.floats(0.01, 20), st.floats(0.1, 10), st.randoms())
def test_one_sample_moves_the_sum_by_the_norm_at_most_exactly(width, power, clip, multiplier, random):
    made = np.random.default_rng(random.getrandbits(32))
    with np.errstate(over="ignore"):
        part = (made.normal(size=(4, width)) * 10.0**power).astype(np.float32)
    mechanism = DPSGD(clip, multiplier, 0.1)
    with_it, without = mechanism.sum([part]), mechanism.sum([part[1:]])
    squared = sum(int(one) ** 2 for one in with_it - without)
    assert squared <= math.floor((clip * 2.0**mechanism.digits) ** 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_adds_nothing(bad):
    part = np.ones((3, 4), np.float32)
    part[1, 2] = bad
    mechanism = DPSGD(1.0, 1.0, 0.1)
    assert (mechanism.sum([part]) == mechanism.sum([part[[0, 2]]])).all()


def test_draws_are_of_their_probability_and_of_the_secret_alone(tmp_path):
    one = steps(tmp_path)
    drawn = np.stack([np.isin(np.arange(400), one.draw("train", step, 400)) for step in range(500)])
    rate, deviation = drawn.mean(), math.sqrt(0.05 * 0.95 / drawn.size)
    assert abs(rate - 0.05) < 4 * deviation
    together = (drawn[:, :-1] & drawn[:, 1:]).mean()  # by themselves: neighbours, and steps, know nothing of each other
    assert abs(together - 0.05**2) < 4 * math.sqrt(0.05**2 / drawn[:, 1:].size)
    assert abs((drawn[:-1] & drawn[1:]).mean() - 0.05**2) < 4 * math.sqrt(0.05**2 / drawn[1:].size)
    again = steps(tmp_path)
    assert (again.draw("train", 7, 400) == one.draw("train", 7, 400)).all()
    others = [
        steps(tmp_path, secret=keys.Secret(bytes(32))),
        steps(tmp_path, agent="two"),
        steps(tmp_path, mesh="another"),
    ]
    assert all(list(other.draw("train", 7, 400)) != list(one.draw("train", 7, 400)) for other in others)
    assert one.seed("train", 7) == again.seed("train", 7) != one.seed("train", 8)
    assert list(Rehearsed(SECRET, DPSGD(1.0, 1.0, 1.0)).draw("", 0, 5)) == [0, 1, 2, 3, 4]


def test_noise_is_of_its_deviation_and_the_sum_stands_beneath_it(tmp_path):
    one, total = steps(tmp_path, multiplier=3.0), np.arange(20_000)
    noise = one.mechanism.value(one.release("train", 0, 9, total) - total, 1.0)
    assert noise.std() == pytest.approx(1.5, rel=0.03) and abs(noise.mean()) < 0.05


def test_steps_are_charged_in_blocks_before_they_are_released(tmp_path):
    one, total = steps(tmp_path), np.arange(3)
    one.release("train", 0, BLOCK + 4, total)
    assert charged(tmp_path) == BLOCK
    for step in range(1, BLOCK):
        one.release("train", step, BLOCK + 4, total)
    assert charged(tmp_path) == BLOCK
    one.release("train", BLOCK, BLOCK + 4, total)
    assert charged(tmp_path) == BLOCK + 5 and len(read(tmp_path / "ledger").lines) == 2
    steps(tmp_path, agent="two").release("train", 0, 0, total)
    assert charged(tmp_path) == BLOCK + 6


def test_a_step_that_is_made_again_costs_nothing_and_is_the_same_or_refused(tmp_path):
    first = [steps(tmp_path).release("train", step, 9, np.arange(4) + step) for step in range(4)]
    size = (tmp_path / "ledger").stat().st_size
    again = steps(tmp_path)
    for step in (2, 0, 3, 1):
        assert (again.release("train", step, 9, np.arange(4) + step) == first[step]).all()
    assert (tmp_path / "ledger").stat().st_size == size and charged(tmp_path) == 10
    with pytest.raises(MeshError, match=r"'one, train, 2' was released with another sum(?s:.*)another seed"):
        again.release("train", 2, 9, np.arange(4))
    other = steps(tmp_path, mesh="another").release("train", 2, 9, np.arange(4) + 2)
    assert (other != first[2]).any() and charged(tmp_path) == 18


@pytest.mark.parametrize("point", ["charge", "note", "noise"])
def test_whatever_ends_a_process_no_step_is_released_that_was_not_charged(tmp_path, monkeypatch, point):
    """Killed at each point of a step; then made with the same sum, and with another one."""

    class Killed(Exception):
        pass

    def killed(*_args, **_more):
        raise Killed

    one = steps(tmp_path)
    one.release("train", 0, 500, np.arange(4))
    with monkeypatch.context() as patched:
        at = {"charge": (Ledger, "charge"), "note": (Charged, "_note"), "noise": (keys.Secret, "noise")}[point]
        patched.setattr(*at, killed)
        with pytest.raises(Killed):
            one.release("train", BLOCK, 500, np.arange(4))
    assert charged(tmp_path) == (BLOCK if point == "charge" else 2 * BLOCK)
    another = steps(tmp_path)
    if point == "noise":  # it may have been given out
        with pytest.raises(MeshError, match="another sum"):
            another.release("train", BLOCK, 500, np.arange(4) + 1)
        another.release("train", BLOCK, 500, np.arange(4))
    else:
        another.release("train", BLOCK, 500, np.arange(4) + 1)
    assert charged(tmp_path) == 2 * BLOCK


def test_a_line_that_was_cut_off_was_of_nothing_released(tmp_path):
    one = steps(tmp_path)
    for step in range(3):
        one.release("train", step, 9, np.arange(4))
    content = one.journal.read_bytes()
    for cut in range(len(content) - 1, len(content) - 60, -13):
        one.journal.write_bytes(content[:cut])
        again = steps(tmp_path)
        again.release("train", 2, 9, np.arange(4) + 5)
        with pytest.raises(MeshError, match="another sum"):
            again.release("train", 1, 9, np.arange(4) + 5)


def test_a_line_that_the_disk_takes_in_parts_is_whole(tmp_path, monkeypatch):
    """A disk that is nearly full takes some bytes, and is no error yet."""
    one, write = steps(tmp_path), os.write
    one.release("train", 0, 9, np.arange(4))
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:20]))
    one.release("train", 1, 9, np.arange(4))
    monkeypatch.undo()
    with pytest.raises(MeshError, match="another sum"):
        steps(tmp_path).release("train", 1, 9, np.arange(4) + 1)


def test_without_its_journal_and_beyond_its_budget_nothing_is_released(tmp_path):
    one = steps(tmp_path)
    one.release("train", 0, 9, np.arange(4))
    assert one.journal.stat().st_mode & 0o077 == 0
    kept = one.journal.read_bytes()
    one.journal.unlink()
    with pytest.raises(MeshError, match=r"is gone, and steps were charged(?s:.*)another seed"):
        steps(tmp_path).release("train", 0, 9, np.arange(4))
    one.journal.write_bytes(kept)
    small = tmp_path / "small"
    small.mkdir()
    title = Title("a", SECRET.identity, "sample", "zero_out", Budget(1.0, 1e-5))
    spends = steps(small, title=title, rate=0.5)
    with pytest.raises(MeshError, match=r"budget: epsilon 0 of 1 is spent.*100 answers of dp_sgd"):
        spends.release("train", 0, 999, np.arange(4))
    assert charged(small) == 0


def test_nothing_that_is_written_tells_a_sum_or_its_noise(tmp_path):
    one, total = steps(tmp_path), np.full(64, 2**33 + 12345)
    noised = one.release("train", 0, 0, total)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 3
    for values, text in product((total, noised, noised - total), written):
        assert str(values[0]).encode() not in text and values.astype("<i8").tobytes()[:16] not in text
