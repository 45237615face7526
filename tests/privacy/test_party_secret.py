"""A party's secret stays in its file and process, and the noise that it makes belongs to one answer alone."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from kdmesh import files
from kdmesh.errors import MeshError
from kdmesh.privacy import keys
from kdmesh.privacy.keys import Secret

CONTENT = bytes(range(32))


def noise(secret, sigma=3.0, size=4, mesh="mesh", purpose="votes", queries=(("q1", "t"),)):
    return secret.noise(sigma, size, mesh, purpose, list(queries)).steps


def test_a_secret_is_32_bytes_that_its_user_alone_can_read(tmp_path):
    before = os.umask(0)
    try:
        made = keys.create(tmp_path / "key")
    finally:
        os.umask(before)
    content = (tmp_path / "key").read_bytes()
    assert len(content) == 32 and len(set(content)) > 8
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert keys.load(tmp_path / "key").identity == made.identity
    assert keys.create(tmp_path / "other").identity != made.identity
    with pytest.raises(MeshError, match="is there already"):
        keys.create(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o710])
def test_one_that_others_may_read_or_write_is_refused(tmp_path, mode):
    keys.create(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(MeshError, match=rf"key: others may read this secret: its mode is 0{mode:o}\n.*chmod 600"):
        keys.load(tmp_path / "key")


def test_what_is_no_secret_is_refused(tmp_path):
    for name, content in (("short", b"x" * 31), ("long", b"x" * 33), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(MeshError, match=rf"{name}: holds {len(content)} bytes"):
            keys.load(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("missing", "does not exist"), (".", "is a folder"), ("pipe", "is a named pipe")):
        with pytest.raises(MeshError, match=what):
            keys.load(tmp_path / name)
    with pytest.raises(MeshError, match="there is no folder"):
        keys.create(tmp_path / "missing" / "key")


def test_nothing_prints_copies_or_pickles_it():
    secret = Secret(CONTENT)
    told = [repr(secret), str(secret), f"{secret}", f"{secret!r}", files.to_json({"key": secret})]
    told += [repr([secret]), repr({"a": secret}), secret.identity, secret.tag(b"x")]
    for text in told:
        for form in (CONTENT.hex(), CONTENT.decode("latin-1"), CONTENT.hex().upper(), repr(CONTENT)):
            assert form not in text
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        for what in (secret, [secret]):
            if way is copy.copy and what is not secret:
                continue  # of the list alone
            with pytest.raises(TypeError, match="neither pickled nor copied"):
                way(what)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert not hasattr(secret, "__dict__")


def test_the_same_answer_has_the_same_noise_and_any_other_another():
    one = noise(Secret(CONTENT))
    assert (one == noise(Secret(CONTENT))).all()
    others = {
        "secret": noise(Secret(CONTENT[::-1])),
        "mesh": noise(Secret(CONTENT), mesh="mesh2"),
        "query": noise(Secret(CONTENT), queries=[("q2", "t")]),
        "values": noise(Secret(CONTENT), queries=[("q1", "u")]),
        "purpose": noise(Secret(CONTENT), purpose="more"),
        "sigma": noise(Secret(CONTENT), sigma=3.0000001),
        "size": noise(Secret(CONTENT), size=5)[:, :4],
        "a border between fields": noise(Secret(CONTENT), mesh="meshv", purpose="otes"),
        "a lone surrogate": noise(Secret(CONTENT), queries=[("\ud800", "t")]),
        "what stands for one": noise(Secret(CONTENT), queries=[("\\ud800", "t")]),
    }
    for (name, a), (other, b) in combinations({"": one, **others}.items(), 2):
        assert not (a == b).any(), (name, other)
    batch = noise(Secret(CONTENT), queries=[("q0", "t"), ("q1", "t")])
    assert (batch[1:] == one).all()


def test_these_are_the_numbers_for_good():
    """What an answer's noise was when it was given must be what it is when it is asked again, years later."""
    assert noise(Secret(CONTENT)).tolist() == [[-84010, -9493, -79256, -63984]]
    assert Secret(CONTENT).identity == "9ec5c056bd012d9c"
    assert Secret(CONTENT).tag(b"values", "mesh") == "aac88ec03bf11c99f02d193d54b3f3c6"


def test_over_queries_noise_is_normal_and_independent():
    made = noise(Secret(CONTENT), 2.5, 3, queries=[(f"q{n}", "t") for n in range(4000)]) / 2.0**15
    for column in made.T:
        assert stats.kstest(column, "norm", args=(0, 2.5)).pvalue > 1e-4
    assert np.abs(np.corrcoef(made.T) - np.eye(3)).max() < 0.08
    assert abs(np.corrcoef(made[:-1, 0], made[1:, 0])[0, 1]) < 0.08
