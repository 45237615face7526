"""``kdmesh store``: what agents said that is kept for later runs; see docs/store.md."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli import store_audit, store_texts
from kdmesh.cli.output import say
from kdmesh.errors import MeshError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.report.grid import Grid
    from kdmesh.store import EntryInfo, Store
    from kdmesh.store.shards import Shard

SHORT = 12  # digits of a digest that are shown
FEW = 12  # numbers of a row that are shown
NAME, BRIEF = re.compile(f"([0-9a-f]{{{SHORT}}})[0-9a-f]{{52}}"), r"\1*"  # sums in paths, as a shell finds them
UNTOLD = ("recipe", "sha256", "weights")  # of a key, what says little in a list


def add(commands: Any) -> None:
    """Add the command."""
    about = "What frozen and finished agents answered, kept on disk so that it is never computed twice: docs/store.md."
    command = commands.add_parser("store", help="look at what agents answered, kept for later runs", description=about)
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = _action(actions, "ls", "list entries: one agent's one signal each", ls)
    showing = _action(actions, "show", "print what an entry is, and what it says of a sample", show)
    showing.add_argument("key", metavar="KEY", help="an entry: the first digits of its digest, as `ls` lists them")
    showing.add_argument(
        "--sample", metavar="N", help="a sample: its number in the stream, or the first digits of its own digest"
    )
    checking = _action(actions, "verify", "read everything back, and tell what is damaged", verify)
    for one in (listing, showing, checking):
        one.add_argument("--json", action="store_true", help="as JSON")
    store_audit.add(_action(actions, "audit", "measure what sparse and rounded answers cost, and their errors", audit))
    pruning = _action(actions, "prune", "delete entries: those that were used longest ago, and none in use", prune)
    pruning.add_argument(
        "--keep-bytes", metavar="N", type=size, required=True, help="how much to keep: 0, 500M, 20G (powers of 1000)"
    )
    exporting = _action(actions, "export", "copy an entry into a folder, which is then a store of its own", export)
    exporting.add_argument("key", metavar="KEY", help="an entry: the first digits of its digest")
    exporting.add_argument("folder", metavar="FOLDER", help="where to; may be a store already")


def _action(actions: Any, name: str, about: str, call: Any) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}."
    )
    where = "the folder or URL of the store (default: $KDMESH_STORE, else in the user's cache folder)"
    action.add_argument("--store", metavar="DIR", help=where)
    action.set_defaults(execute=execute, action=call)
    return action


def execute(args: argparse.Namespace) -> int:
    """Do what is asked for."""
    return int(args.action(args))


def size(text: str) -> int:
    """Read an amount of bytes; argparse puts this function's name into its message."""
    from kdmesh.store.store import amount

    found = amount(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of bytes, as 0, 500M or 20G")
    return found


def _open(args: argparse.Namespace) -> Store:
    """The store that is asked for. MeshError where there is none."""
    from kdmesh.store import Store, default_root

    where = default_root() if args.store is None else args.store
    if where is None or where == "off":
        raise MeshError("the store is switched off", where="--store", instead="the folder of a store")
    store = Store.open(where, limit_bytes=None)
    if not store.exists:
        raise MeshError("there is no store yet", file=str(store.path), where="--store",
                        instead="a folder that a run has used: `kdmesh run FILE` fills one")  # fmt: skip
    return store


def ls(args: argparse.Namespace) -> int:
    """List entries."""
    from kdmesh.files import to_json
    from kdmesh.report.grid import show as print_table
    from kdmesh.report.runs import amount

    store = _open(args)
    found = sorted(store.entries(), key=lambda one: -(one.used or 0))
    if args.json:
        print(to_json([_record(one) for one in found], 2))
        return 0
    if found:
        print_table(sys.stdout, _listed(found))
    total = sum(one.size for one in found)
    say(f"{amount(total)} in {store.place}" if found else f"nothing in {store.place}")
    return 0


def _record(one: EntryInfo) -> dict[str, Any]:
    key = {} if one.key is None else {"producer": dict(one.key.producer), "signal": dict(one.key.signal)}
    return {
        "digest": one.digest, **key, "info": dict(one.info), "rows": one.rows, "shards": one.shards,
        "bytes": one.size, "used": one.used, "fault": one.fault,
    }  # fmt: skip


def _listed(found: list[EntryInfo]) -> Grid:
    from kdmesh.report.grid import KEPT, Column, Grid
    from kdmesh.report.runs import amount, span

    def right(text: str) -> str:
        return text

    rows = [
        {
            "entry": one.digest[:SHORT],
            "who": _who(one),
            "what": "damaged" if one.fault else _what(one),
            "rows": f"{one.rows:,}",
            "size": amount(one.size),
            "used": None if one.used is None else span(max(0.0, time.time() - one.used)),
        }
        for one in found
    ]
    columns = [
        Column("entry", "entry", spare=KEPT), Column("first asked by", "who", spare=1),
        Column("signal", "what", spare=1), Column("rows", "rows", right), Column("size", "size", right),
        Column("used", "used", right),
    ]  # fmt: skip
    faults = [f"{one.digest[:SHORT]}: {one.fault}" for one in found if one.fault]
    return Grid(f"{len(found)} {'entry' if len(found) == 1 else 'entries'}", columns, rows, "\n".join(faults))


def _who(one: EntryInfo) -> str | None:
    """Mesh and agent, or consensus, that asked for it first, or of which it is the history."""
    told = [str(one.info[name]) for name in ("mesh", "agent") if name in one.info]
    if not told and one.key is not None and "history" in one.key.producer:
        run = one.key.producer.get("run")
        told = [
            *([str(run["mesh"])] if isinstance(run, dict) and "mesh" in run else []),
            str(one.key.producer["history"]),
        ]
    return "/".join(told) or None


def _what(one: EntryInfo) -> str:
    """Which output, and in which form."""
    signal = {} if one.key is None else dict(one.key.signal)
    if "history" in ({} if one.key is None else one.key.producer):
        kept = signal.get("retention")
        told = " ".join(f"{name}: {value}" for name, value in kept.items()) if isinstance(kept, dict) else str(kept)
        return f"history of {signal.get('space', 'values')}, {told}"
    return " ".join(filter(None, ("" if signal.get("output") or signal.get("made") else "logits", brief(signal))))


def brief(value: object, named: bool = False) -> str:
    """What a part of a key says, in few words: no hashes, nothing that is not set; ``named``: with names of fields."""
    if isinstance(value, dict):
        parts = {name: brief(one, True) for name, one in value.items() if name not in UNTOLD}
        plain = {"name", "settings"} if named else {"output", "made", "form"}
        return " ".join(told if name in plain else f"{name}={told}" for name, told in parts.items() if told)
    if isinstance(value, list):
        told = ",".join(filter(None, (brief(one, True) for one in value)))
        return f"[{told}]" if told else ""
    return "" if value in (None, "", False) or (isinstance(value, str) and len(value) > 40) else str(value)


def show(args: argparse.Namespace) -> int:
    """Print an entry, or what it says of a sample."""
    from kdmesh.files import to_json

    store = _open(args)
    info = store.find(args.key)
    if info.key is None:
        raise MeshError(f"cannot be read: {info.fault}", where="KEY", file=info.digest[:SHORT],
                        instead="the version of kdmesh that wrote it; or, where it is damaged, run what wrote it once "
                        "more: it writes entry.json anew")  # fmt: skip
    entry = store.entry(info.key)
    entry.refresh()
    if args.sample is not None:
        said = [one for other in _together(store, info) for one in _said(store, other, args.sample)]
        if not said:
            raise MeshError(f"no sample {args.sample} in this entry", where="--sample",
                            instead="a number of the stream that filled it, or a digest's first digits")  # fmt: skip
        said.sort(key=lambda one: (one["round"] is not None, one["round"], one["who"] or "", one["computed on"]))
        if _of_texts(info) and not args.json:
            store_texts.print_texts(said)
        else:
            _print_sample(said, args.json)
    elif args.json:
        shards = [{"file": one.name, "rows": len(one), "bytes": one.size, **one.about} for one in entry.shards]
        print(to_json({**_record(info), "files": shards}, 2))
    else:
        _print_entry(info, entry.shards)
    for note in store.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    return 0


def _print_entry(info: EntryInfo, shards: list[Shard]) -> None:
    from kdmesh.report import layout
    from kdmesh.report.grid import KEPT, Column, Grid
    from kdmesh.report.grid import show as print_table
    from kdmesh.report.runs import amount

    assert info.key is not None
    width = layout.terminal_width()
    rows = [["entry", info.digest]]
    for title, part in (("producer", info.key.producer), ("signal", info.key.signal), ("noted", info.info)):
        rows += [[title if not number else "", told] for number, told in enumerate(_lines(part))]
    rows += [["values", layout_of] for layout_of in sorted({one.layout for one in shards})]
    print("\n".join(layout.table(rows, width)))

    def right(text: str) -> str:
        return text

    cells = [
        {
            "file": one.name[:SHORT], "rows": f"{len(one):,}", "size": amount(one.size),
            "round": None if one.round is None else str(one.round), "on": _on(one), "error": _error(one.about),
        }
        for one in shards
    ]  # fmt: skip
    columns = [
        Column("shard", "file", spare=KEPT), Column("rows", "rows", right), Column("size", "size", right),
        Column("round", "round", right), Column("error", "error", right), Column("computed on", "on", spare=1),
    ]  # fmt: skip
    print()
    print_table(sys.stdout, Grid(f"{len(shards)} {'shard' if len(shards) == 1 else 'shards'}", columns, cells))


def _lines(part: Mapping[str, Any]) -> list[str]:
    """A part of a key, a line for each of its fields."""
    from kdmesh.files import to_json

    return [f"{name}: {one if isinstance(one, str) else to_json(one)}" for name, one in part.items()]


def _on(shard: Shard) -> str:
    one = shard.fingerprint
    threads = f"{one.threads} thread{'' if one.threads == 1 else 's'}"
    return f"{one.name}, {one.capability}, {threads}, torch {one.version}"


def _error(about: Mapping[str, Any]) -> str | None:
    errors = about.get("errors") or {}
    return f"{max(errors.values()):.2g}" if errors else None


def _of_texts(info: EntryInfo) -> bool:
    """Whether it is the history of a stream that a rule made."""
    from kdmesh.store.signals import TEXTS

    key = info.key
    return key is not None and "history" in key.producer and key.signal.get("space") == TEXTS


def _together(store: Store, info: EntryInfo) -> list[EntryInfo]:
    """An entry alone; of a history, all of the same run and stream: who said what in which round."""

    def of(one: EntryInfo) -> tuple[object, ...] | None:
        known = {} if one.key is None else one.key.producer
        return (known["run"], known.get("stream"), _of_texts(one)) if "history" in known and "run" in known else None

    return [info] if of(info) is None else [one for one in store.entries() if of(one) == of(info)]


def _said(store: Store, info: EntryInfo, sample: str) -> list[dict[str, Any]]:
    """What an entry says of the samples of a number, or of a digest that begins so: one, or in several views."""
    from kdmesh.store.shards import hexadecimal, matching
    from kdmesh.store.signals import of_sample

    assert info.key is not None
    entry, texts = store.entry(info.key), _of_texts(info)
    entry.refresh()
    return [
        {
            "who": _who(info),
            "sample": None if shard.ids is None else int(shard.ids[at]),
            "digest": hexadecimal(shard, at),
            "round": shard.round,
            "computed on": _on(shard),
            "values": json.loads(of_sample(shard, at)["text"]) if texts else of_sample(shard, at),
        }
        for shard in entry.shards
        for at in matching(shard, sample)
    ]


def _print_sample(said: list[dict[str, Any]], as_json: bool) -> None:
    from kdmesh.files import to_json

    if as_json:
        print(to_json(said, 2))
        return
    rows: list[list[str]] = []
    machines = {one["computed on"] for one in said}
    for one in said:
        who = one["who"] or "it"
        number = f"digest {one['digest'][:SHORT]}" if one["sample"] is None else f"sample {one['sample']}"
        of = "" if one["round"] is None else f"round {one['round']}: "
        on = f", on {one['computed on']}" if len(said) == 1 or len(machines) > 1 else ""
        rows.append([f"{of}{who} of {number}{on}", ""])
        rows += [[f"  {name}", told] for name, value in one["values"].items() for told in _numbers(value)]
    for head, told in rows:
        say(f"{head:<10} {told}".rstrip())
    if len(said) > 1 and len(machines) == 1:
        say(f"all computed on {machines.pop()}")


def _numbers(value: Any) -> list[str]:
    """A row's numbers, a line for each of its rows; of many the first few."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        lines = [line for one in value[:FEW] for line in _numbers(one)]
        return [*lines, f"... {len(value) - FEW} more rows"] if len(value) > FEW else lines
    values = value if isinstance(value, list) else [value]
    told = " ".join(f"{one:.6g}" if isinstance(one, float) else str(one) for one in values[:FEW])
    return [f"{told} ... {len(values) - FEW} more" if len(values) > FEW else told]


def verify(args: argparse.Namespace) -> int:
    """Tell what is damaged; 1 where something is lost by it."""
    from kdmesh.files import to_json

    store = _open(args)
    faults = [*store.verify()]
    bad = [one for one in faults if not one.harmless]
    if args.json:
        print(to_json([vars(one) for one in faults], 2))
        return int(bool(bad))
    for one in faults:
        say(f"{NAME.sub(BRIEF, one.path)}: {one.what}")
    total = sum(one.shards for one in store.entries())
    damaged = f"{len(bad)} {'file' if len(bad) == 1 else 'files'} damaged, or not of a store"
    shards = f"{total} {'shard' if total == 1 else 'shards'} read"
    print(f"{shards}, {damaged}" if bad else f"{shards}: all as they were written")
    if bad:
        print("what a damaged file held is computed again where a run needs it")
    return int(bool(bad))


def audit(args: argparse.Namespace) -> int:
    """Measure sparse and rounded answers against dense ones."""
    return store_audit.audit(args, _open(args), _who)


def prune(args: argparse.Namespace) -> int:
    """Delete what was used longest ago."""
    from kdmesh.report.runs import amount

    store = _open(args)
    gone = store.prune(args.keep_bytes)
    for one in gone:
        print(f"{amount(one.size):>8}  {one.digest[:SHORT]}")
    left = sum(one.size for one in store.entries())
    print(f"{amount(sum(one.size for one in gone))} deleted, {amount(left)} left")
    if left > args.keep_bytes:
        print("what is left is in use by other processes")
    return 0


def export(args: argparse.Namespace) -> int:
    """Copy an entry."""
    store = _open(args)
    info = store.find(args.key)
    if info.key is None:
        raise MeshError(f"cannot be read: {info.fault}", where="KEY", file=info.digest[:SHORT], instead="another entry")
    rows = store.export(info.key, Path(args.folder))
    say(f"{rows:,} rows of {info.digest[:SHORT]} copied: use them with --store {args.folder}")
    return 0
