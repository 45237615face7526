"""The search for raw samples finds one in each form that it names, and none where there is none."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import os
import zlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdmesh.testing.leaks import Search, memory

X = load_digits().data
SCALED = X / 16
NOISE = np.random.default_rng(0).bytes(200_000)
RAW = {
    "float64": lambda row: row.tobytes(),
    "float32": lambda row: row.astype(np.float32).tobytes(),
    "float16": lambda row: row.astype(np.float16).tobytes(),
    "bfloat16": lambda row: torch.tensor(row).bfloat16().view(torch.int16).numpy().tobytes(),
    "int64": lambda row: row.astype(np.int64).tobytes(),
    "int16": lambda row: row.astype(np.int16).tobytes(),
    "uint8": lambda row: row.astype(np.uint8).tobytes(),
    "quantised": lambda row: (row * 255 / 16).round().astype(np.uint8).tobytes(),
}
WRITTEN = {
    "rows of CSV": lambda row: ",".join(str(int(value)) for value in row).encode(),
    "JSON": lambda row: json.dumps(row.tolist()).encode(),
    "repr": lambda row: repr(row).encode(),
    "a tensor's": lambda row: repr(torch.tensor(row)).encode(),
    "four decimals": lambda row: " ".join(f"{value:.4f}" for value in row).encode(),
    "lines": lambda row: "\\n".join(f"{value:e}" for value in row).encode(),
}
PACKED = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "lzma": lzma.compress,
    "base64": base64.b64encode,
    "URL's base64": base64.urlsafe_b64encode,
    "hexadecimal": lambda content: content.hex().encode(),
    "base64 of zlib": lambda content: base64.b64encode(zlib.compress(content)),
    "zlib of hexadecimal": lambda content: zlib.compress(content.hex().encode()),
}


@pytest.fixture(scope="module")
def search():
    return Search({"north": X[300:400], "south": X[400:500]}, [X[:300]])


def rows(found):
    return {(one.whose, one.row) for one in found}


@pytest.mark.parametrize("form", RAW)
@pytest.mark.parametrize("at", [0, 3, 4])
def test_bytes_of_a_sample_are_found_wherever_they_stand(search, form, at):
    content = NOISE[: 1000 + at] + RAW[form](X[307]) + NOISE[:500]
    found = search(content, "here")
    assert ("north", 7) in rows(found) and any(one.how == form and one.where == "here" for one in found)


@pytest.mark.parametrize("form", WRITTEN)
def test_decimals_of_a_sample_are_found(search, form):
    found = search(NOISE[:1001] + WRITTEN[form](X[433]) + NOISE, "here")
    assert rows(found) == {("south", 33)}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("form", ["float32", "uint8", "JSON"])
def test_what_is_packed_is_unpacked(search, packed, form):
    content = PACKED[packed]((RAW | WRITTEN)[form](X[305:308].reshape(-1)))
    found = search(NOISE[:1001] + content + NOISE[:77], "here")
    assert ("north", 6) in rows(found), found


@pytest.mark.parametrize(("first", "last"), [(0, 40), (20, 60), (11, 64)])
def test_a_part_of_a_sample_is_found(search, first, last):
    """Of 31 values in a row 16 stand where a run of them begins."""
    content = X[312].astype(np.float32)[first:last].tobytes()
    assert ("north", 12) in rows(search(NOISE[:501] + content, "here"))


def test_samples_may_be_given_as_they_become():
    known = Search({"north": SCALED[300:400]}, [SCALED[:300]])
    for form in (RAW["float32"], WRITTEN["four decimals"]):
        assert rows(known(NOISE[:99] + form(SCALED[309]), "here")) == {("north", 9)}


def test_what_is_public_or_random_gives_none_away(search):
    public = b"".join(form(X[:300]) for form in (*RAW.values(), lambda rows: json.dumps(rows.tolist()).encode()))
    assert search(public + zlib.compress(public) + NOISE, "here") == []
    assert search(torch.randn(5000, 10).numpy().tobytes() + bytes(100_000), "here") == []
    assert search(b"", "here") == []
    assert search.looked_for == {"north": 100, "south": 100}


def test_a_public_sample_that_a_party_has_too_is_not_looked_for():
    assert Search({"north": X[:5]}, [X[:5]]).looked_for == {}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="memory is read as Linux shows it")
def test_memory_of_a_process_is_searched(search):
    held = RAW["float16"](X[321]) * 3
    found = [one for place, part in memory(os.getpid()) if held in part for one in search(part, place)]
    assert any(one.row == 21 and one.how == "float16" and one.where.startswith("memory at ") for one in found)
