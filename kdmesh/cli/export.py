"""``kdmesh export``: a trained agent in a form that other software runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import use_plugins_dir
from kdmesh.cli.predict import MEASURED, ROLES, add_folder, add_labels, add_reading, progress, read_inputs
from kdmesh.errors import MeshError, nearest, printable

if TYPE_CHECKING:
    from kdmesh.inference.export.exporting import Exported

LISTED = 6  # names of classes in a line


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Write an agent that a run trained in a form that other software runs, with export.json beside it, and "
        "compare the file with the agent; with --data also score both. Where they differ by more than --tolerance "
        "nothing is written."
    )
    brief = "write a trained agent as ONNX, of 8 bits too, or torch.export"
    command = commands.add_parser("export", help=brief, description=about)
    add_folder(command)
    command.add_argument(
        "--to", metavar="FORM", required=True, help="onnx, int8, torch_export; of language models gguf, ollama"
    )
    command.add_argument("-o", "--out", metavar="FOLDER", help="where to (default: DIR/FORM)")
    command.add_argument(
        "--tolerance",
        metavar="X",
        type=_tolerance,
        help="how far a logit or value may be from the agent's (default: 0.0001; int8: any, with --data)",
    )
    command.add_argument(
        "--name", metavar="NAME", help="by which it is given to others (default: the agent's): licences may ask for one"
    )
    command.add_argument("--llama-cpp", metavar="DIR", help="gguf, ollama: a checkout of llama.cpp, which converts")
    command.add_argument("--numbers", metavar="TYPE", help="gguf, ollama: f16 (the default), f32, bf16 or q8_0")
    command.add_argument("--data", metavar="FILE", help="score the file and the agent on these labelled samples")
    add_labels(command)
    add_reading(command, MEASURED)
    command.set_defaults(execute=execute)


def _tolerance(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 up")
    return number


def execute(args: argparse.Namespace) -> int:
    """Read, write, compare, score and print."""
    use_plugins_dir(args)
    of_data = ("label", "labels", *ROLES, "split", "root")
    if args.data is None and (odd := next((one for one in of_data if getattr(args, one)), None)):
        raise MeshError("it says how --data is read, and there is none", where=f"--{odd}", instead="--data FILE")
    from kdmesh.inference.export import exporting, forms, gguf
    from kdmesh.inference.trained import Trained

    if args.to in gguf.FORMS:
        return _gguf(args)
    if odd := next((one for one in ("llama_cpp", "numbers") if getattr(args, one) is not None), None):
        flag = f"--{odd.replace('_', '-')}"
        raise MeshError(f"it is for {' and '.join(gguf.FORMS)}", where=flag, instead="leave it out")
    form = forms.form_of(args.to)
    form.refuse()
    trained = Trained.read(args.folder, code=not args.no_code)
    inputs = None if args.data is None else read_inputs(args, trained, "--data", labelled=True)
    folder = Path(args.out) if args.out is not None else Path(args.folder) / form.name
    with progress(0 if inputs is None else 2 * len(inputs), args.quiet or inputs is None) as told:
        found = exporting.export(trained, form, folder, args.tolerance, inputs, args.label, told, args.name or "")
    _owed(args)
    _print(found, form.title)
    return 0


def _gguf(args: argparse.Namespace) -> int:
    """The same of a language model, by the converter of llama.cpp."""
    from kdmesh.inference.export import gguf
    from kdmesh.inference.trained import Trained

    if args.no_code:
        what = "the converter of llama.cpp is a program, which would be run"
        raise MeshError(what, where="--no-code", instead="--to onnx, or without --no-code")
    numbers = args.numbers or gguf.TYPES[0]
    if numbers not in gguf.TYPES:
        raise MeshError(f"found {numbers!r}", where="--numbers", instead=nearest(numbers, gguf.TYPES, "types"))
    trained = Trained.read(args.folder)
    folder = Path(args.out) if args.out is not None else Path(args.folder) / args.to
    inputs = None if args.data is None else read_inputs(args, trained, "--data", labelled=True)
    with progress(0 if inputs is None else 2 * len(inputs), args.quiet or inputs is None) as told:
        found = gguf.export(
            trained, args.to, folder, args.llama_cpp, numbers, args.tolerance, inputs, args.label, told, args.name or ""
        )
    _owed(args)
    record, compared = found.record, found.record["compared"]
    size = (found.folder / record["file"]).stat().st_size
    print(f"{record['agent']} as {gguf.FORMS[args.to]}: {found.folder / record['file']}, {_bytes(size)}, {numbers}")
    if compared["served"]:
        lengths = " and ".join(map(str, compared["lengths"]))
        print(f"  served: largest difference of a log-probability {compared['largest_difference']:.1e}")
        print(f"  (after texts of {lengths} tokens)")
    else:
        print(f"  not served, and so not compared: {compared['why']}")
    if "scored" in record:
        _print_scores(record["scored"])
    if args.to == "ollama":
        print(f"  ollama create NAME -f {found.folder / gguf.MODELFILE}")
    return 0


def _owed(args: argparse.Namespace) -> None:
    """Say where a licence of what the agent learned from asks for another name."""
    from kdmesh.inference.export import owed
    from kdmesh.report import layout

    name = args.name or Path(args.folder).resolve().name
    if why := owed.wrong_name(owed.origin(Path(args.folder)), name):
        print("\n".join(layout.wrap(f"note: {why}", layout.terminal_width(), "  ")))


def _print(found: Exported, title: str) -> None:
    from kdmesh.report import layout

    record = found.record
    size = (found.folder / record["file"]).stat().st_size
    print(f"{record['agent']} as {title}: {found.folder / record['file']}, {_bytes(size)}")
    for word, one in [*(("input", one) for one in record["inputs"]), *(("output", one) for one in record["outputs"])]:
        names = [printable(name, breaks=False) for name in one.get("names", ())]
        listed = f": {', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''}" if names else ""
        line = f"  {word:6} {one['name']} {one['dtype']} [{', '.join(map(str, one['shape']))}]{listed}"
        print("\n".join(layout.wrap(line, layout.terminal_width(), "  ")))
    compared = record["compared"]
    at = f"batches of {', '.join(map(str, compared['batches']))}"
    at += f", {' and '.join(map(str, compared['lengths']))} tokens" if compared["lengths"] else ""
    print(f"  largest difference {compared['largest_difference']:.1e} ({at})")
    for line in _takes(record["raw"]):
        print(f"  {line}")
    if "scored" in record:
        _print_scores(record["scored"])


def _takes(raw: dict[str, Any]) -> list[str]:
    """What becomes of a raw sample before the file can take it."""
    found = []
    if "divided_by" in raw:
        found.append(f"it takes the source's values divided by {raw['divided_by']:g}")
    if "prepare" in raw:
        found.append("it takes prepared samples: prepare.json says how, and is no part of it")
    if "tokenizer" in raw:
        found.append(f"it takes tokens of tokenizer.json, at most {raw['max_length']}")
    return found


def _print_scores(scored: dict[str, Any]) -> None:
    own, agent = scored["exported"], scored["agent"]
    names = [name for name, value in agent.items() if isinstance(value, int | float) and name in own]
    shown = {name: printable(name, breaks=False) for name in names}
    width = max((len(one) for one in shown.values()), default=0)
    print(f"  on {scored['samples']:,} samples of {printable(scored['data'], breaks=False)}")
    print(f"    {'':{width}}  exported     agent")
    for name in names:
        print(f"    {shown[name]:{width}}  {own[name]:8.4f}  {agent[name]:8.4f}")
    for name, why in own.get("undefined", {}).items():
        if name in agent:
            print(f"    {printable(name, breaks=False)}: not scored: {why}")


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"
