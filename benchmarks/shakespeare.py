"""The claims on tinyshakespeare: a small language model alone, with teachers of two tokenizers, and with a peer.

Run ``python benchmarks/shakespeare.py DATA [--write]``, or ``make shakespeare DATA=folder``. DATA holds
``tinyshakespeare/input.txt.gz``: 1,115,394 characters of plays, data/tinyshakespeare/input.txt of karpathy/char-rnn on
GitHub, packed with gzip.

What was decided before the first run: the last tenth of the text is the test, a twentieth of the rest, drawn once,
validation; 2,000 of the 3,726 samples of 256 characters that are left are train. Teachers are trained once, for four
epochs: `pairs`, a GPT-2 of 2 layers and width 128 on 512 learned byte pairs, and `letters`, one of width 96 on
characters. The student is a GPT-2 of one layer and width 48 with the tokenizer of `pairs`, two epochs; half of its loss
is the labels'. What `pairs` says is learned by forward KL, what `letters` says by aligned spans. One consensus node
cannot hear two tokenizers, so that *consensus* is here a sum of losses, a quarter for each teacher. Of two mutual
students `left` is the student and `right` a LLaMA of equal width; each is compared with itself alone. Seeds are of
initial weights and dropout; split, teachers and batches are those of the mesh. `best` is the student of the teacher
with fewer bits per character on validation. A miss is printed as MISS, and the exit code stays 0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from texts import Figures, Report, Threshold, fields_of, metric, options, repeated, run

TEACHERS = ("pairs", "letters")
SMALL = ("alone", "of-pairs", "of-letters", "of-both", "left", "right", "right-alone")
CLAIMS = (  # bits per character, fewer are better; written down on 2026-11-24 before any of these runs
    Threshold("best", "alone", below=0),
    Threshold("consensus", "alone", below=0),
    Threshold("consensus", "best", below=0),
    Threshold("mutual left", "alone", below=0),
    Threshold("mutual right", "right alone", below=0),
)


def bits(summary: dict[str, Any], agent: str, split: str = "test") -> float:
    """Bits per character, whatever the tokenizer."""
    return metric(summary, agent, "bits_per_character", split)


def measure(data: Path, out: Path, seeds: int, reuse: bool, report: Report) -> None:
    """Train the teachers, then the students of all seeds, and report them."""
    text = f"data.dataset.text_file.path={data / 'input.txt.gz'}"
    taught, folder = run(fields_of("shakespeare-teachers", text), out, reuse)
    saved = folder / "agents"
    over = [f"agents.{name}.model.hf.path={saved / name}" for name in TEACHERS]
    over += [f"agents.{name}.model.hf.tokenizer={saved / 'pairs'}" for name in SMALL]
    told, _ = run(repeated(fields_of("shakespeare-students", text, *over), range(seeds)), out, reuse)
    best = min(TEACHERS, key=lambda name: bits(taught, name, "validation"))
    arms = {"alone": "alone", "of pairs": "of-pairs", "of letters": "of-letters", "best": f"of-{best}"}
    arms |= {"consensus": "of-both", "mutual left": "left", "mutual right": "right", "right alone": "right-alone"}
    figures: Figures = {f"teacher {name}": [bits(taught, name)] for name in TEACHERS}
    figures |= {arm: [bits(told, f"{name}-{seed}") for seed in range(seeds)] for arm, name in arms.items()}
    report("        best by validation: " + best + ", of " + ", ".join(
        f"{name} {bits(taught, name, 'validation'):.3f}" for name in TEACHERS))  # fmt: skip
    report.figures(figures, CLAIMS, 3)


def main() -> int:
    """Run everything."""
    given = options(__doc__, "tinyshakespeare", 3)
    report = Report("shakespeare")
    report("Bits per character on the last tenth of the text; mean, 95% t interval and each seed; paired by seed.\n")
    measure(given.data, given.out, given.seeds, given.reuse, report)
    report.close(given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
