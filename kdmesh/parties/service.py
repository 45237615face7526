"""Parties and their coordinator over gRPC, with TLS by which each proves who it is.

A party calls, so that it needs no open port; the coordinator listens, on loopback unless it is told another address.
The certificate of a party names it (its common name), and both sides trust the certificates of one authority alone.
"""

from __future__ import annotations

import queue
import stat
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import isinf
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from kdmesh.backends.wire import Garbled, pack, unpack
from kdmesh.errors import HostLost, MeshError, RunFailed
from kdmesh.parties.frames import HEAD, PIECE, Joined, pieces
from kdmesh.parties.joining import MOST, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kdmesh.parties.member import Member

METHOD = "/kdmesh.Parties/Join"
HELLO = 0
"""The number of the first message of each side."""
OVER = 2**62
"""That of the last one of the coordinator."""
HERE = "is here already"
"""What a party is told whose connection before this one has not been given up yet."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
FIRST = 2**16
"""The most bytes of a first message."""
TRIES = 5  # messages of a party that are answered at a time
OPTIONS = [
    ("grpc.max_receive_message_length", PIECE + HEAD.size),
    ("grpc.max_send_message_length", PIECE + HEAD.size),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True)
class Certificates:
    """The authority that both sides trust, and a certificate with its key, as PEM files of a folder."""

    authority: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def read(cls, folder: Path) -> Certificates:
        """Read ``ca.pem``, ``cert.pem`` and ``key.pem``; MeshError names the one that is not there, or not secret."""
        found = []
        for name in ("ca.pem", "cert.pem", "key.pem"):
            path = folder / name
            try:
                if name == "key.pem" and stat.S_IMODE(path.stat().st_mode) & 0o077:
                    what = "others may read this key"
                    raise MeshError(what, file=str(path), where="--tls", instead=f"chmod 600 {path}")
                found.append(path.read_bytes())
            except OSError as error:
                raise MeshError(
                    f"cannot be read: {error.strerror}",
                    file=str(path),
                    where="--tls",
                    instead="a folder with ca.pem, cert.pem and key.pem; see docs/federated.md",
                ) from None
        return cls(*found)


def grpc() -> Any:
    """The library, which is an extra."""
    try:
        import grpc as found
    except ImportError:
        what = "parties in processes of their own talk over gRPC, which is not installed"
        raise MeshError(what, where="--parties", instead="pip install 'kdmesh[parties]'") from None
    return found


class Connection:
    """A party that has joined, as the coordinator sees it."""

    def __init__(self, name: str, hello: dict[str, Any], patience: float) -> None:
        self.name, self.hello, self.patience = name, hello, patience
        self.outgoing: queue.Queue[bytes | None] = queue.Queue()
        self._waiting: dict[int, Future[bytes]] = {}
        self._number, self._lock = HELLO, threading.Lock()
        self.lost = ""

    def ask(self, message: bytes) -> bytes:
        """Send a message and wait for its answer. HostLost where the party is gone, or says nothing for too long."""
        with self._lock:
            if self.lost:
                raise self._gone(self.lost)
            self._number += 1
            number, future = self._number, Future[bytes]()
            self._waiting[number] = future
        for piece in pieces(number, message):
            self.outgoing.put(piece)
        try:
            return future.result(None if isinf(self.patience) else self.patience)
        except TimeoutError:
            self.end(f"no answer for {self.patience:g} s")
            raise self._gone(self.lost) from None

    def answered(self, number: int, message: bytes) -> None:
        """Hand an answer to who waits for it. Garbled for one that nobody does."""
        with self._lock:
            future = self._waiting.pop(number, None)
        if number == OVER:
            return
        if future is None:
            raise Garbled(f"an answer to message {number}, which nobody has sent, or twice")
        future.set_result(message)

    def end(self, why: str) -> None:
        """The party is gone: tell all who wait."""
        with self._lock:
            self.lost = self.lost or why
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(self._gone(why))
        self.outgoing.put(None)

    def _gone(self, why: str) -> HostLost:
        lost = HostLost(f"{self.name} is gone: {why}", where=f"parties.{self.name}")
        lost.host = self.name
        return lost


class Coordinator:
    """Listens for parties, and has those that have joined. Use it in a `with`.

    ``expected``: what a party must say as it joins, by name: see :mod:`kdmesh.parties.joining`. ``patience``:
    seconds that parties may take to come, and, where ``silence`` is not shorter, to answer; ``say`` is told who comes
    and who is refused; ``sizes``: by party, how many samples it has, as far as that is known before it comes;
    ``remark``: what a party is told whose public samples are others.
    """

    def __init__(
        self,
        address: str,
        certificates: Certificates,
        names: Iterable[str],
        expected: Mapping[str, str],
        patience: float = 600.0,
        say: Callable[[str], None] = lambda text: None,
        silence: float | None = None,
        sizes: Mapping[str, int] | None = None,
        remark: str = "",
    ) -> None:
        self.names, self.expected, self.patience, self.say = list(names), dict(expected), patience, say
        self.silence = patience if silence is None else min(patience, silence)
        self._here: dict[str, Connection] = {}
        self._sizes, self.remark = dict(sizes or {}), remark
        self._changed, self._over = threading.Condition(), False
        library = grpc()
        threads = ThreadPoolExecutor(2 * len(self.names) + 4, "kdmesh-join")
        self._server = library.server(threads, options=OPTIONS, maximum_concurrent_rpcs=2 * len(self.names) + 2)
        handler = library.stream_stream_rpc_method_handler(self._join)
        generic = library.method_handlers_generic_handler("kdmesh.Parties", {"Join": handler})
        self._server.add_generic_rpc_handlers((generic,))
        secure = library.ssl_server_credentials(
            [(certificates.key, certificates.certificate)], certificates.authority, require_client_auth=True
        )
        try:
            self.port = self._server.add_secure_port(address, secure)
        except RuntimeError:
            self.port = 0
        if not self.port:
            what = f"cannot listen on {address}"
            raise MeshError(what, where="--listen", instead="an address of this machine, and a port that is free")

    def __enter__(self) -> Coordinator:
        self._server.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Tell parties that the run is over; where it was interrupted, they wait for who goes on with it."""
        self._over, over = True, pack({"incarnation": 0, "over": True, "failed": error is not None})
        for connection in list(self._here.values()):
            if not connection.lost and (error is None or issubclass(error, Exception)):
                for piece in pieces(OVER, over):
                    connection.outgoing.put(piece)
            connection.outgoing.put(None)
        self._server.stop(5).wait()

    # -- what the backend asks --------------------------------------------------------------------------------------

    def links(self, names: Iterable[str], least: int | None = None) -> Mapping[str, Connection]:
        """Wait until all of these are here, or, for as long as it takes, until so many are."""
        wanted, until, said = list(names), monotonic() + self.patience, False
        with self._changed:
            while missing := [name for name in wanted if name not in self._here or self._here[name].lost]:
                if least is not None:
                    if len(wanted) - len(missing) >= least:
                        break
                    if not said:
                        self.say(f"waiting until {least} of {', '.join(wanted)} are here")
                    said = True
                elif monotonic() >= until:
                    who = ", ".join(missing)
                    lost = HostLost(f"{who} did not join within {self.patience:g} s", where="parties")
                    lost.host = who
                    raise lost
                self._changed.wait(1.0)
            return {name: self._here[name] for name in wanted if name not in missing}

    def here(self, names: Iterable[str]) -> Mapping[str, Connection]:
        """Those of these who are here now."""
        with self._changed:
            return {name: self._here[name] for name in names if name in self._here and not self._here[name].lost}

    def sizes(self) -> dict[str, int]:
        """By party, how many samples it has of its own, where it has any; the file or it says so, as it first joins."""
        return {name: size for name, size in self._sizes.items() if size}

    # -- parties that come -------------------------------------------------------------------------------------------

    def _join(self, incoming: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """One party, from its first word until it is gone."""
        first = Joined(FIRST)
        names = [name.decode("utf-8", "replace") for name in context.auth_context().get("x509_common_name", ())]
        name = names[0] if len(names) == 1 else ""
        try:
            hello = self._first(incoming, first)
            why = self._fault(name, hello)
        except Garbled as error:
            hello, why = {}, error.what
        if why:
            self.say(f"refused {name or 'someone without a name'!r}: {why}")
            yield from pieces(HELLO, pack({"refused": why, "later": why.endswith(HERE)}))
            return
        connection = Connection(name, hello, self.silence)
        with self._changed:
            self._here[name] = connection
            self._sizes.setdefault(name, hello["samples"])
            self._changed.notify_all()
        self.say(f"{name} has joined, with {hello['samples']:,} samples of its own")
        yield from pieces(HELLO, pack({"joined": True}))
        reader = threading.Thread(target=self._read, args=(incoming, Joined(), connection), daemon=True)
        reader.start()
        context.add_callback(lambda: connection.end("the connection ended"))
        while (piece := connection.outgoing.get()) is not None:
            yield piece
        with self._changed:
            if self._here.get(name) is connection:
                connection.end("the connection ended")

    @staticmethod
    def _first(incoming: Iterator[bytes], joined: Joined) -> Any:
        for piece in incoming:
            if (whole := joined.add(piece)) is not None:
                number, message = whole
                if number != HELLO:
                    raise Garbled("a first message that is none")
                return unpack(message)
        raise Garbled("no first message")

    def _fault(self, name: str, hello: Any) -> str:
        """Why someone may not join; nothing where he may."""
        kinds = {"kdmesh": str, "party": str, "mesh": str, "public": str, "samples": int}
        if not isinstance(hello, dict) or any(type(hello.get(key)) is not kind for key, kind in kinds.items()):
            return "a first message that says something else than who joins"
        if hello["party"] != name:
            return f"the certificate is of {name!r}, and it says that it is {hello['party']!r:.80}"
        if name not in self.names:
            return f"there is no party {name!r} in this mesh"
        if hello["kdmesh"] != VERSION:
            return f"kdmesh {hello['kdmesh']!r:.40} there, and {VERSION} here"
        if hello["mesh"] != self.expected["mesh"]:
            return "its mesh file says something else than the coordinator's (beside `data` of a party and the seed)"
        if hello["public"] != self.expected["public"]:
            return f"its public samples are others than the coordinator's (`data`){self.remark}"
        if not 0 <= hello["samples"] <= MOST:
            return f"{hello['samples']:,} samples, and {MOST:,} are the most"
        if self._sizes.get(name, hello["samples"]) != hello["samples"]:
            return f"{hello['samples']:,} samples, where {self._sizes.get(name, 0):,} are known of"
        with self._changed:
            if name in self._here and not self._here[name].lost:
                return f"{name} {HERE}"
        return ""

    def _read(self, incoming: Iterator[bytes], joined: Joined, connection: Connection) -> None:
        """Hand on what a party answers, until it is gone or says something that is no answer."""
        why = "the connection ended"
        try:
            for piece in incoming:
                if (whole := joined.add(piece)) is not None:
                    connection.answered(*whole)
        except Garbled as error:
            why = error.what
        except Exception as error:  # of the library, whose errors have no common class that says more
            why = f"the connection broke ({type(error).__name__})"
        connection.end(why)
        if not self._over:
            self.say(f"{connection.name}: {why}")


def take_part(member: Member, address: str, certificates: Certificates, patience: float = 600.0) -> None:
    """Join a coordinator and answer what it asks, until it says that the run is over; join again where it is gone.

    MeshError where it refuses; RunFailed where it is not there for ``patience`` seconds.
    """
    library, until = grpc(), monotonic() + patience
    secure = library.ssl_channel_credentials(certificates.authority, certificates.key, certificates.certificate)
    hello = pack(member.hello())
    while not member.over:
        with library.secure_channel(address, secure, options=OPTIONS) as channel:
            outgoing: queue.Queue[bytes | None] = queue.Queue()
            for piece in pieces(HELLO, hello):
                outgoing.put(piece)
            stream = channel.stream_stream(METHOD)(iter(outgoing.get, None))
            met = False
            try:
                for _ in _answer(member, stream, outgoing):
                    met = True
            except library.RpcError as error:
                why = error.details() or error.code().name
                member.say(f"no connection to {address}: {why.splitlines()[0][:200]}")
            finally:
                outgoing.put(None)
                if met:
                    until = monotonic() + patience
        if not member.over:
            if monotonic() > until:
                what = f"no coordinator at {address} for {patience:g} s"
                raise RunFailed(what, where="--join", instead="start the coordinator, then the same command again")
            sleep(0.5)


def _answer(member: Member, stream: Any, outgoing: queue.Queue[bytes | None]) -> Iterator[bool]:
    """Answer every message of a connection; yields True once it is one. What is fetched is answered meanwhile.

    Its end waits for what is being answered; an interruption does not, which may be a whole epoch.
    """
    joined, asked = Joined(), queue.SimpleQueue[tuple[int, bytes] | None]()

    def give() -> None:
        while (one := asked.get()) is not None:
            for piece in pieces(one[0], member.answer(one[1])):
                outgoing.put(piece)

    threads = [threading.Thread(target=give, name=f"kdmesh-party-{number}", daemon=True) for number in range(TRIES)]
    for thread in threads:
        thread.start()
    wait = True
    try:
        for piece in stream:
            whole = joined.add(piece)
            if whole is None:
                continue
            number, message = whole
            if number == HELLO:
                said = unpack(message)
                if not isinstance(said, dict) or "joined" not in said:
                    why = said.get("refused") if isinstance(said, dict) else ""
                    if isinstance(said, dict) and said.get("later") is True:
                        member.say(f"waiting: {why}")
                        return
                    raise MeshError(f"the coordinator refused: {why}", where="--join", instead="what it has")
                member.joined()
                member.say("joined")
                yield True
                continue
            asked.put((number, message))
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        for _ in threads:
            asked.put(None)
        for thread in threads if wait else ():
            thread.join()
