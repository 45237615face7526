from __future__ import annotations

import base64
import socket
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from page_text import Read

import kdmesh
from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.hosts import source
from kdmesh.plugins import registry
from kdmesh.report import answers
from kdmesh.report.page import samples
from kdmesh.report.page.blocks import Page, Sample, Samples, Section
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import html
from kdmesh.report.page.known import Known
from kdmesh.report.run_folder import read
from kdmesh.spec import DataSpec, StreamSpec
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample as Words
from kdmesh.streams.texts import Texts

ODD = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on the digits whose teachers differ: they are hardly trained."""
    mesh = kdmesh.Mesh(name="pictures", data={"dataset": "digits", "train": 64}, train={"steps": 2, "batch_size": 16})
    for agent in ("t1", "t2", "s"):
        mesh.agent(agent, {"mlp": {"hidden": [4]}})
    mesh.connect("ensemble", teachers=["t1", "t2"], student="s")
    return mesh.run(backend="inline", out=tmp_path_factory.mktemp("digits")).folder


def found(folder, **more):
    section = next(one for one in page_of(folder, whole=True, **more).sections if one.id == "answers")
    return next((block for block in section.blocks if block.kind == "samples"), None), section


def pixels(address):
    """The picture in an address, read by the format's own rules."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        parts[kind], at = body, at + 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", parts[b"IHDR"][:10])
    channels = {0: 1, 2: 3}[colour]
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert depth == 8 and not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, channels).transpose(2, 0, 1)


def test_pictures_are_those_of_the_data_with_what_everyone_answered(folder):
    block, _ = found(folder)
    table, known = registry().find("datasets", "digits").make({}), answers.read(folder)
    at = {int(one): row for row, one in enumerate(known.ids)}
    assert 0 < len(block.samples) <= samples.MOST
    for sample in block.samples:
        one, row = int(sample.name), at[int(sample.name)]
        assert np.array_equal(pixels(sample.picture), (table.x[one].numpy() * 255).round().astype(np.uint8))
        assert sample.label == str(int(table.y[one])) and sample.text is None
        told = {name: (answer, sure.value, right) for name, _, answer, sure, right in sample.answers}
        assert told["t1"][0] != told["t2"][0] and set(told) == {"t1", "t2", "s", "c"}
        for name, of in {**known.agents, **known.consensus}.items():
            assert told[name] == (str(of.decision[row]), of.confidence[row], of.decision[row] == known.labels[row])


def test_only_the_command_shows_samples_and_not_where_it_is_told(folder, tmp_path):
    assert "<img" not in html(page_of(folder)) and "Left out here: samples" in html(page_of(folder))
    assert found(folder, samples=False)[0] is None
    page = tmp_path / "page.html"
    assert main(["report", str(folder), "-o", str(page)]) == 0
    addresses = Read(page.read_text()).addresses
    assert sum(one.startswith("data:image/png;base64,") for one in addresses) == len(found(folder)[0].samples)
    assert main(["report", str(folder), "-o", str(page), "--no-samples"]) == 0
    assert Read(page.read_text()).addresses and "data:image/png;base64,i" not in page.read_text()
    assert "Samples of the data are left out, as was asked" in page.read_text()


def test_other_samples_than_the_runs_are_not_shown(folder, tmp_path, monkeypatch):
    other = registry().find("datasets", "digits").make({})
    other.x = other.x.clone()
    other.x[0, 0, 0, 0] += 0.5
    monkeypatch.setattr(source, "_read", lambda dataset, where, prepares: other)
    block, section = found(folder)
    assert block is None and "other samples now than the run had" in str(section.blocks)


def test_data_that_ask_for_a_network_get_none(folder, monkeypatch):
    def ask(dataset, where, prepares):
        socket.create_connection(("127.0.0.1", 9), timeout=1)

    monkeypatch.setattr(source, "_read", ask)
    block, section = found(folder)
    assert block is None and "made without a network" in str(section.blocks)
    assert socket.create_connection.__module__ == "socket" and "refused" not in socket.getaddrinfo.__qualname__


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"streams": {"own": {"of": "train", "private": True}}}, "a stream of this run is private"),
        ({"data": {"dataset": {"text": {"hub": "some/data"}}}}, "of a hub"),
        ({"data": {"dataset": {"own.module:Data": {}}}}, "code of one's own"),
        ({"data": "python:given"}, "given from Python"),
    ],
)
def test_what_may_not_be_read_is_not(folder, monkeypatch, change, said):
    known = Known.of(read(folder))
    data = DataSpec.model_validate(change.get("data", {"dataset": "digits"}))
    streams = {name: StreamSpec.model_validate(one) for name, one in change.get("streams", {}).items()}
    known.__dict__["plan"] = SimpleNamespace(spec=SimpleNamespace(data=data, streams=streams))
    monkeypatch.setattr(source.Source, "load", lambda *_: pytest.fail("it was read"))
    with pytest.raises(MeshError, match=said):
        samples._read(known)


def test_data_given_from_python_are_not_read(runs):
    block, section = found(runs["small"])
    assert block is None and "given from Python" in str(section.blocks)


def test_texts_are_cut_and_escaped():
    texts = Texts([Words(text=f"{ODD}\x1b[31m\u202e", pair="second"), Words(text="a" * 5000)])
    contents, note = samples._contents(Table(texts, torch.tensor([0, 1]), 2), [0, 1])
    assert contents[0] == (None, f"{ODD}\\x1b[31m\\u202e\nsecond") and "400" in note
    assert contents[1][1] == "a" * 400 + " … (of 5,000 letters)"
    block = Samples(ODD, [Sample("0", ODD, None, contents[0][1], [(ODD, "teacher", ODD, None, False)])], ODD)
    text = html(Page("t", [], [], [], [], [], [Section("s", "s", [block])]))
    assert "<script" not in text and ODD in "".join(Read(text).text)


@pytest.mark.parametrize(
    ("shape", "low", "high", "size", "said"),
    [
        ((3, 300, 200), -1.0, 1.0, (3, 100, 67), "Brightness is scaled: -1 is black, 1 white. One pixel in 3"),
        ((1, 8, 9), 0.0, 0.5, (1, 8, 9), ""),
        ((2, 8, 8), 0.0, 1.0, None, "neither pictures nor texts"),
        ((1, 1, 8), 0.0, 1.0, None, "neither pictures nor texts"),
        ((8,), 0.0, 1.0, None, "neither pictures nor texts"),
    ],
)
def test_pictures_of_any_size_and_what_is_none(shape, low, high, size, said):
    x = torch.linspace(low, high, 2 * int(np.prod(shape))).view(2, *shape)
    contents, note = samples._contents(Table(x, torch.tensor([0, 1]), 2), [0, 1])
    assert said in note and bool(contents) == (size is not None)
    for address, _ in contents:
        assert pixels(address).shape == size
    if contents:
        least, most = pixels(contents[0][0]).min(), pixels(contents[1][0]).max()
        assert (least, most) == ((0, 255) if high == 1.0 else (0, 128))


def test_names_of_classes_stand_beside_their_numbers():
    assert [samples._named(at, ["0", "cat"]) for at in (0, 1, 2)] == ["0", "1 (cat)", "2"]


def test_rows_that_are_parts_of_samples_are_not_shown(folder):
    known = answers.read(folder)
    known.ids[:] = 0
    (block,) = samples.shown(None, known, [0], ["t1"])
    assert "parts of samples" in str(block.words)
