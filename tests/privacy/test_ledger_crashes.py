"""Whatever ends a process, and whatever of its unsynced writes reached the disk: no answer is without its charge.

A disk is modelled: bytes that were not synced may be there up to any of them, or as zeros, and names that a folder was
not synced for may be there up to any of them. A ledger is driven on it, and begun again from every state that a crash
after any operation may leave, and from every state that a crash while beginning again may leave.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from kdmesh.errors import MeshError
from kdmesh.privacy.ledger import Budget, Charge, Ledger, Title, read

TITLE = Title("a", "k", "sample", "replace", Budget(8.0, 1e-5))
NAME = "ledger"


def charge(*names):
    return Charge("gnmax", {}, 2**0.5, 40.0, "a", "m", dict.fromkeys(names, "t"))


class Recorder:
    """Notes what is done to files of one folder, in order, while it is really done."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.done = folder, []
        write, cut, sync = os.write, os.ftruncate, os.fsync
        whole, rename = Path.write_bytes, Path.replace
        patch.setattr(os, "write", lambda n, data: (self.note("append", n, bytes(data)), write(n, data))[1])
        patch.setattr(os, "ftruncate", lambda n, size: (self.note("cut", n, size), cut(n, size))[1])
        patch.setattr(os, "fsync", lambda n: (self.note("sync", n), sync(n))[1])
        patch.setattr(Path, "write_bytes", lambda path, data: (self.note("new", path, data), whole(path, data))[1])
        patch.setattr(Path, "replace", lambda path, to: (self.note("name", path, Path(to).name), rename(path, to))[1])

    def note(self, what, where, *rest):
        path = Path(os.readlink(f"/proc/self/fd/{where}")) if isinstance(where, int) else where
        if path == self.folder or path.parent == self.folder:
            self.done.append((what, "" if path == self.folder else path.name, *rest))

    def answered(self, *names):
        self.done.append(("answered", *names))


class Disk:
    """What is surely there, and what may be."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.content = {number: (data, data) for number, data in enumerate(files.values())}  # synced, and as written
        self.names = {name: number for number, name in enumerate(files)}
        self.pending: list[dict[str, int]] = []  # of names, since the folder was synced
        self.now = dict(self.names)

    def apply(self, what, name, *rest):
        if what == "sync" and not name:
            self.names, self.pending = dict(self.now), []
        elif what == "sync":
            number = self.now[name]
            self.content[number] = (self.content[number][1],) * 2
        elif what == "append":
            synced, written = self.content[self.now[name]]
            self.content[self.now[name]] = (synced, written + rest[0])
        elif what == "cut":
            synced, written = self.content[self.now[name]]
            self.content[self.now[name]] = (synced, written[: rest[0]])
        elif what == "new":
            self.content[len(self.content)] = (b"", rest[0])
            self.now[name] = len(self.content) - 1
            self.pending.append(dict(self.now))
        elif what == "name":
            self.now[rest[0]] = self.now.pop(name)
            self.pending.append(dict(self.now))

    def states(self, every: bool):
        """All folders that a crash now may leave; ``every``: cut at each byte, else at some."""
        for names in (self.names, *self.pending):
            choices = [sorted(maybe(*self.content[number], every)) for number in names.values()]
            for contents in product(*choices):
                yield dict(zip(names, contents, strict=True))


def maybe(synced: bytes, written: bytes, every: bool) -> set[bytes]:
    """What may be on the disk of a file."""
    if synced == written:
        return {written}
    if synced.startswith(written):  # it was cut, or not yet
        return {synced, written}
    assert written.startswith(synced)
    more = len(written) - len(synced)
    places = range(more + 1) if every else sorted({0, 1, more // 2, more - 1, more})
    found = {written[: len(synced) + place] for place in places}
    for place in {0, more // 3, more - 1}:  # its length is there, its pages are not, or not all
        found.add(written[: len(synced) + place] + bytes(more - place))
        found.add(written[: len(synced)] + bytes(place) + written[len(synced) + place :])
    return found


def laid_out(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / NAME


def proved(folder: Path, files: dict[str, bytes], answered: set[str], asked: set[str]) -> None:
    """Begun again, the ledger has each charge of an answer, no other than was asked, and goes on."""
    path = laid_out(folder, files)
    with Ledger(path, TITLE) as ledger:
        charged = {one for line in ledger.account.lines for one in line.charge.queries}
        assert answered <= charged <= asked, (answered, charged, files)
        for one in sorted(asked):
            assert (ledger.charge(charge(one)).number is None) == (one in charged)
    account = read(path)
    assert sorted(one for line in account.lines for one in line.charge.queries) == sorted(asked)
    assert not account.torn


def crashes(trace, disk: Disk, every=lambda what: what == "append"):
    """After each operation: what may be on the disk, and what had been answered."""
    answered: set[str] = set()
    yield from ((files, set(answered)) for files in disk.states(False))
    for what, *rest in trace:
        if what == "answered":
            answered |= set(rest)
        else:
            disk.apply(what, *rest)
            yield from ((files, set(answered)) for files in disk.states(every(what)))


def test_a_crash_at_every_point_loses_no_charge_of_an_answer(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    with monkeypatch.context() as patch:
        recorder = Recorder(home, patch)
        with Ledger(home / NAME, TITLE) as ledger:
            for names in (("q1",), ("q2", "q3"), ("q3", "q4")):
                ledger.charge(charge(*names))
                recorder.answered(*names)
    kinds = [what for what, *_ in recorder.done]
    assert kinds.count("append") == 3 and kinds.count("answered") == 3 and kinds.count("name") == 5
    for number, what in enumerate(kinds):
        if what == "answered":  # the line is synced, then the head, then its name
            assert kinds[number - 6 : number] == ["append", "sync", "new", "sync", "name", "sync"]
    seen = 0
    monkeypatch.setattr(os, "fsync", lambda number: None)  # what was synced when is known by now
    for number, (files, answered) in enumerate(crashes(recorder.done, Disk({}))):
        proved(tmp_path / str(number), files, answered, {"q1", "q2", "q3", "q4"})
        seen += 1
    assert seen > 1000
    print(f"{len(kinds)} operations, {seen} states")


def test_a_crash_while_beginning_again_loses_none_either(tmp_path, monkeypatch):
    path = laid_out(tmp_path / "home", {})
    with Ledger(path, TITLE) as ledger:
        ledger.charge(charge("q1"))
        head = (tmp_path / "home" / f"{NAME}.head").read_bytes()
        before = path.read_bytes()
        ledger.charge(charge("q2"))
        after = path.read_bytes()
    states = [(after, head), (after[:-1], head), (after[:-200], head), (before + b"\0" * 50, head)]
    seen = 0
    for state, (content, known) in enumerate(states):
        files = {NAME: content, f"{NAME}.head": known}
        home = tmp_path / f"again{state}"
        with monkeypatch.context() as patch:
            laid_out(home, files)
            recorder = Recorder(home, patch)
            with Ledger(home / NAME, TITLE):
                pass
        assert {what for what, *_ in recorder.done} >= ({"name"} if state == 0 else {"cut", "sync"})
        for number, (left, _) in enumerate(crashes(recorder.done, Disk(files))):
            whole = content == after
            proved(tmp_path / f"{state} {number}", left, {"q1", "q2"} if whole else {"q1"}, {"q1", "q2"})
            seen += 1
    assert seen > 15


def test_a_file_cut_at_any_byte_is_refused_where_its_head_knows_more(tmp_path):
    path = laid_out(tmp_path / "home", {})
    with Ledger(path, TITLE) as ledger:
        ledger.charge(charge("q1"))
        ledger.charge(charge("q2"))
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(MeshError):  # the head knows of what is gone
            read(path)
    path.write_bytes(content)
    assert len(read(path).lines) == 2


def test_thirty_kills_of_a_process_lose_no_charge_of_an_answer(tmp_path):
    """A process that answers is killed thirty times, at moments of a seed; another one goes on with its ledger."""
    script = Path(__file__).with_name("killed_answering.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "30 kills" in done.stdout and "no answer without its charge" in done.stdout
    print(done.stdout)
