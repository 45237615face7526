"""With everything but the secret, noise cannot be taken off an answer: an attack tries, and works with the secret."""

from __future__ import annotations

import hashlib
import itertools
import json
import random

import numpy as np
import pytest

from kdmesh.privacy import gaussian, keys
from kdmesh.privacy.keys import Secret
from kdmesh.privacy.ledger import Budget, Ledger, Title
from kdmesh.privacy.mechanisms.gaussian_probabilities import GaussianProbabilities
from kdmesh.privacy.releasing import Desk

MESH, QUERIES, SIGMA = "digest of the mesh", [f"sample-{n}" for n in range(12)], 6.0
MECHANISM = GaussianProbabilities(SIGMA, "sample", "replace")


@pytest.fixture
def told(tmp_path):
    """A party's answers, its private rows, its secret, and the text of all files beside that."""
    rows = np.random.default_rng(5).dirichlet([0.3] * 5, len(QUERIES))
    (tmp_path / "key").write_bytes(bytes(range(32)))  # not of chance, so that neither is the noise
    (tmp_path / "key").chmod(0o600)
    secret = keys.load(tmp_path / "key")
    title = Title("hospital_a", secret.identity, "sample", "replace", Budget(50.0, 1e-5))
    with Ledger(tmp_path / "ledger", title) as ledger:
        answers = Desk(ledger, secret, MESH, "hospital_a").answer(MECHANISM, QUERIES, rows)
    lines = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    return answers, rows, secret, lines, (tmp_path / "ledger.head").read_text()


def undone(answers, noise):
    """Which answers, the noise taken off, are rows that a party may have hidden: no negative, and at most 1 in sum."""
    steps = np.round(answers * 2**MECHANISM.digits).astype(np.int64) - noise
    return (steps >= 0).all(1) & (steps.sum(1) <= 1 << MECHANISM.digits) & (steps.sum(1) > (1 << MECHANISM.digits) - 8)


def words(lines, head):
    """Every field of the ledger and its head, and what else is public, as bytes that a secret might be made of."""
    found = {MESH, MECHANISM.purpose, "hospital_a", "kdmesh", "", head, *QUERIES}
    waiting = [*lines, json.loads(head)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        else:
            found.add(str(one))
    return sorted(found)


def test_with_the_secret_all_noise_comes_off_and_without_it_none(told):
    answers, rows, secret, lines, head = told
    tags = lines[1]["queries"]
    asked = list(tags.items())

    def of(candidate):
        return candidate.noise(SIGMA, 5, MESH, MECHANISM.purpose, asked).steps

    assert undone(answers, of(secret)).all()  # the attack works, where the secret is known
    off = np.round(answers * 2**MECHANISM.digits).astype(np.int64) - of(secret)
    assert (off == MECHANISM.steps(rows)).all()

    public = [word.encode() for word in words(lines, head)]
    guesses = [hashlib.sha256(word).digest() for word in public]
    guesses += [bytes.fromhex(word.decode()) for word in public if len(word) == 64]  # hashes of lines, as they are
    guesses += [hashlib.sha256(b"".join(pair)).digest() for pair in itertools.permutations(public[:12], 2)]
    guesses += [word[:32].ljust(32, b"\0") for word in public]
    guesses += [number.to_bytes(32, order) for number in range(200) for order in ("big", "little")]
    guesses += [random.Random(seed).randbytes(32) for seed in range(200)]
    guesses += [np.random.default_rng(seed).bytes(32) for seed in range(200)]
    assert len(guesses) > 900
    assert not any(undone(answers, of(Secret(one))).any() for one in guesses)


def test_public_seeds_and_streams_take_none_off(told):
    answers, _, _, lines, head = told
    shape, unit = answers.shape, 2**MECHANISM.digits
    seeds = [
        *range(500),
        *(int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") for word in words(lines, head)),
    ]
    for seed in seeds:
        normal = np.random.default_rng(seed).normal(0, SIGMA, shape) * unit
        bits = np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64)
        for noise in (np.round(normal).astype(np.int64), gaussian.noise(bits, lambda *_: 0, SIGMA).steps):
            assert not undone(answers, noise).any() and not undone(answers, -noise).any()


def test_no_two_answers_of_one_row_can_be_subtracted(told, tmp_path):
    """Not of another mesh, query, sigma, or round: the noise of each is its own."""
    _, rows, secret, _, _ = told
    title = Title("hospital_a", secret.identity, "sample", "replace", Budget(5000.0, 1e-5))
    row = np.repeat(rows[:1], 300, 0)
    with Ledger(tmp_path / "another", title) as ledger:
        names = [f"round {n}" for n in range(300)]
        one = Desk(ledger, secret, MESH, "a").answer(MECHANISM, names, row)
        two = Desk(ledger, secret, "another mesh", "a").answer(MECHANISM, names, row)
        wider = GaussianProbabilities(2 * SIGMA, "sample", "replace")
        three = Desk(ledger, secret, MESH, "a").answer(wider, names, row)
    for difference, sigma in (
        (one - two, 2**0.5 * SIGMA),
        (one[1:] - one[:-1], 2**0.5 * SIGMA),
        (2 * one - three, 2**0.5 * 2 * SIGMA),  # were the noise one and the same, it would be the row
    ):
        assert difference.std() == pytest.approx(sigma, rel=0.1) and (difference != 0).all()


def test_the_ledger_tells_nothing_of_the_values(told):
    """Tags are of the values, but who guesses the values cannot prove the guess: they are keyed by the secret."""
    answers, rows, secret, lines, head = told
    text = json.dumps(lines) + head
    for row, (query, tag) in zip(rows, lines[1]["queries"].items(), strict=True):
        content = MECHANISM.steps(row[None]).astype("<i8").tobytes()
        for name in (hashlib.sha256, hashlib.md5, hashlib.sha3_256, hashlib.blake2b):
            assert name(content).hexdigest()[:16] not in text
        other = keys.Secret(bytes(32))
        assert tag == secret.tag(content, MESH, MECHANISM.purpose, query)
        assert tag != other.tag(content, MESH, MECHANISM.purpose, query)
    assert len(set(lines[1]["queries"].values())) == len(QUERIES) == len(answers)
