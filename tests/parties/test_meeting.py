"""Connections of parties: messages in pieces, who may join, how long each side waits, and what is said at the end."""

from __future__ import annotations

import itertools
import queue
import threading
from types import SimpleNamespace

import pytest

from kdmesh.backends.wire import Garbled, pack, unpack
from kdmesh.errors import HostLost, RunFailed
from kdmesh.parties import service
from kdmesh.parties.frames import HEAD, PIECE, Joined, pieces
from kdmesh.parties.joining import MOST, VERSION
from kdmesh.parties.service import HELLO, HERE, OVER, Certificates, Connection, Coordinator


def test_messages_that_are_mixed_are_put_together():
    joined, found = Joined(), {}
    sent = {number: bytes([number]) * (PIECE * number + 5) for number in (1, 2, 3)}
    ways = [list(pieces(number, message)) for number, message in sent.items()]
    for piece in (one for group in itertools.zip_longest(*ways) for one in group if one is not None):
        if (whole := joined.add(piece)) is not None:
            found[whole[0]] = whole[1]
    assert found == sent


def test_a_piece_with_others_to_come_is_whole():
    """Else pieces of nothing never reach the limit, and each takes longer than the one before."""
    with pytest.raises(Garbled, match="with others to come"):
        Joined().add(HEAD.pack(1, 0))
    with pytest.raises(Garbled, match="with others to come"):
        Joined().add(HEAD.pack(1, 2) + b"x")


def test_the_limit_is_of_all_messages_that_are_under_way():
    joined, piece = Joined(3 * PIECE), b"x" * PIECE
    for number in (1, 2, 3):
        assert joined.add(HEAD.pack(number, 0) + piece) is None
    with pytest.raises(Garbled, match=r"more than 3,145,728 bytes"):
        joined.add(HEAD.pack(4, 0) + piece)
    again = Joined(2 * PIECE)
    for number in range(5):  # what was put together counts no longer
        assert again.add(HEAD.pack(number, 1) + piece) == (number, piece)


def test_who_is_to_be_waited_for_without_end_is():
    connection = Connection("north", {}, float("inf"))
    connection.outgoing.put = lambda piece: connection.end("it went") if piece else None
    with pytest.raises(HostLost, match="north is gone: it went"):
        connection.ask(b"1")


HELLO_OF = {"kdmesh": VERSION, "party": "north", "mesh": "m", "public": "p", "samples": 5}


@pytest.fixture
def coordinator(monkeypatch):
    made = Coordinator.__new__(Coordinator)
    made.names, made.expected, made.say = ["north"], {"mesh": "m", "public": "p"}, lambda text: None
    made._here, made._sizes, made.remark = {}, {}, ""
    made._changed = service.threading.Condition()
    made._server = SimpleNamespace(stop=lambda grace: SimpleNamespace(wait=lambda: None))
    return made


@pytest.mark.parametrize("samples", [-1, MOST + 1, 10**30])
def test_a_party_cannot_make_the_coordinator_keep_room_for_what_nobody_has(coordinator, samples):
    assert coordinator._fault("north", HELLO_OF) == ""
    assert f"{MOST:,} are the most" in coordinator._fault("north", {**HELLO_OF, "samples": samples})


def test_a_party_has_as_many_samples_as_the_file_says(coordinator):
    coordinator._sizes = {"north": 6}
    assert coordinator._fault("north", HELLO_OF) == "5 samples, where 6 are known of"
    assert coordinator._fault("north", {**HELLO_OF, "samples": 6}) == "" and coordinator.sizes() == {"north": 6}


def test_of_two_parties_of_one_name_the_second_waits_until_the_first_is_gone(coordinator):
    """Whoever has its key can take its place, and not beside it."""
    coordinator._here["north"] = connection = Connection("north", HELLO_OF, 1)
    assert coordinator._fault("north", HELLO_OF) == f"north {HERE}"
    connection.end("the connection ended")
    assert coordinator._fault("north", HELLO_OF) == ""


@pytest.mark.parametrize(
    ("error", "told"), [(None, [False]), (RunFailed, [True]), (KeyboardInterrupt, [])], ids=["end", "failed", "Ctrl-C"]
)
def test_what_parties_are_told_at_the_end(coordinator, error, told):
    """Of an interruption nothing: they look for who resumes the run."""
    connection = Connection("north", {}, 1)
    coordinator._here["north"] = connection
    coordinator.__exit__(error, None, None)
    joined, found = Joined(), []
    while (piece := connection.outgoing.get_nowait()) is not None:
        number, message = joined.add(piece)
        assert number == OVER
        found.append(unpack(message)["failed"])
    assert found == told


def test_a_party_waits_anew_for_a_coordinator_that_goes_after_hours(monkeypatch):
    """How long it looks for one is counted from when it last had one."""
    clock, joins = [0.0], []

    class Gone(Exception):
        def details(self):
            return "gone"

    class Channel:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def stream_stream(self, method):
            return lambda sent: self.answers()

        def answers(self):
            joins.append(clock[0])
            if len(joins) == 1:
                yield from pieces(HELLO, pack({"joined": True}))
                clock[0] += 7200.0
            raise Gone

    library = SimpleNamespace(RpcError=Gone, secure_channel=lambda *_, **__: Channel(),
                              ssl_channel_credentials=lambda *_: None)  # fmt: skip
    monkeypatch.setattr(service, "grpc", lambda: library)
    monkeypatch.setattr(service, "monotonic", lambda: clock[0])
    monkeypatch.setattr(service, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + 20.0))
    member = SimpleNamespace(over=False, hello=dict, joined=lambda: None, say=lambda text: None)
    with pytest.raises(RunFailed, match="no coordinator at here for 60 s"):
        service.take_part(member, "here", Certificates(b"", b"", b""), 60.0)
    assert joins == [0.0, 7220.0, 7240.0, 7260.0, 7280.0]


@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError])
def test_an_interruption_does_not_wait_for_what_is_being_computed(end):
    """Any other end does, so that two connections never compute at a time."""
    begun, done, outgoing = threading.Event(), threading.Event(), queue.Queue()

    def answer(message):
        begun.set()
        done.wait(1 if end is OSError else 600)
        return pack({"value": None})

    def stream():
        yield from pieces(HELLO, pack({"joined": True}))
        yield from pieces(1, pack({"call": 1}))
        assert begun.wait(60)
        raise end

    member = SimpleNamespace(answer=answer, joined=lambda: None, say=lambda text: None)
    try:
        with pytest.raises(end):
            list(service._answer(member, stream(), outgoing))
        assert outgoing.empty() == (end is KeyboardInterrupt)
    finally:
        done.set()
