"""``kdmesh evaluate``: a trained agent's figures on a file of labelled samples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kdmesh.cli.common import use_plugins_dir
from kdmesh.cli.predict import FORMS, MEASURED, add_labels, add_trained, note_cut, progress, read
from kdmesh.errors import printable

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    about = (
        "Measure an agent that a run trained on a file of samples with labels: the metrics that the run reported. "
        "On the file that was the run's test split these are the run's own figures. A language model is measured on "
        "texts, whose own tokens are the labels."
    )
    command = commands.add_parser("evaluate", help="measure a trained agent on a file of labels", description=about)
    add_trained(command, "DATA", f"with labels: {FORMS}", MEASURED)
    add_labels(command)
    command.add_argument(
        "--by", metavar="COLUMN", action="append", default=[], help="also by the values of this column (repeatable)"
    )
    command.add_argument("--json", action="store_true", help="print all figures as JSON")
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Read, answer, measure and print."""
    use_plugins_dir(args)
    from kdmesh.inference.evaluating import evaluate

    trained, inputs = read(args, "DATA", labelled=True)
    cut: list[int] = []
    with progress(len(inputs), args.quiet) as told:
        found = evaluate(trained, inputs, args.by, args.label, told, cut)
    note_cut(trained, inputs, cut, left_out=trained.config.over == "drop")
    if args.json:
        said = {"agent": trained.config.agent, "samples": len(inputs), "split": inputs.split, "figures": found}
        print(json.dumps(said, indent=1))
        return 0
    split = "" if inputs.split is None else f", split {inputs.split}"
    print(f"{trained.config.agent} on {len(inputs):,} samples of {inputs.path.name}{split}")
    found = {printable(name, breaks=False): value for name, value in found.items()}
    width = max(map(len, found), default=0)
    for name, value in found.items():
        if isinstance(value, int | float):
            print(f"  {name:{width}}  {value:.4f}")
        elif isinstance(value, dict) and "worst_value" in value:
            print(f"  {name:{width}}  worst {value['worst']:.4f} ({_named(value['worst_value'])})")
            for one, figure in value["values"].items():
                shown = "not defined" if figure is None else f"{figure:.4f}"
                print(f"    {_named(one)}: {shown}, {value['rows'][one]:,} rows")
    for name, why in found.get("undefined", {}).items():
        print(f"  {name}: not defined: {why}")
    return 0


def _named(value: str) -> str:
    """A value of a column in a line."""
    return printable(value, breaks=False)[:40]
