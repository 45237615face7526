"""Pairs of what several agents wrote: a run and a plain loop make the same ones and end with the same weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import kdmesh
import pytest
import torch
from kdmesh.engine.check import examine
from plain_argued import Argued, declared, judged, right_over_wrong
from plain_pairs import divergence, dpo
from test_preference_zero_difference import EPOCHS, SEED, SIGNS, SIZE, tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

NEW = {"t": 4, "s": 4, "j": 12}
HEARS = "{{ one.text }}={{ other.text }}={{ prompt }}"


def saved(folder: Path) -> list[dict[str, str]]:
    """Models of a teacher, a judge and a student, and sums, whose column `digit` an untrained model may say."""
    lines = [
        {"q": f"{a}+{b}" + "=" * (a % 3), "a": str(a + b), "digit": SIGNS[(3 * a + b) % 10]}
        for a in range(5)
        for b in range(5)
    ]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    words = tokenizer()
    for number, name in enumerate("tjs"):
        torch.manual_seed(number)
        config = LlamaConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, intermediate_size=24, max_position_embeddings=64, initializer_range=0.3,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return lines


def mesh(folder: Path, streams: dict[str, Any], objective: Any, **more: Any) -> kdmesh.Mesh:
    """The run's side."""
    model = {name: {"hf": {"path": str(folder / name), "max_length": 40}} for name in "tjs"}
    data = {"path": str(folder / "sums.jsonl"), "text": "a", "prompt": "q"}
    every = {name: {**one} for name, one in streams.items()}
    for one in every.values():
        if "generated_by" in one:
            one |= {"prompts": "train", "sampling": {"max_new_tokens": NEW[one["generated_by"]]}}
    return kdmesh.Mesh(
        task="language_modelling",
        data={"dataset": {"text": data}},
        text={"bucket": False},
        placement="together",
        seed=SEED,
        agents={
            "t": {"model": model["t"], "update": "frozen"},
            "j": {"model": model["j"], "update": "frozen"},
            "s": {"model": model["s"]},
        },
        streams=every,
        flows=[{"from": "t", "to": "s", "stream": "pairs", "objective": objective, "refresh": "step"}],
        train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}, **more},
    )


TURNS = {"t0": ("t", []), "s0": ("s", []), "t1": ("t", ["t0", "s0"]), "s1": ("s", ["s0", "t0"])}
FIRST = {name: TURNS[name] for name in ("t0", "s0")}
ORDERS = {"ab": ("j", ["t0", "s0"]), "ba": ("j", ["s0", "t0"])}
DPO = {"dpo": {"beta": 0.3}}
CASES: dict[str, tuple[dict[str, tuple[str, list[str]]], dict[str, Any], Any, Any]] = {
    "a debate, right over wrong": (
        TURNS,
        {"rule": {"right_over_wrong": {"pattern": "^[^0-9]*([0-9])", "column": "digit"}}},
        DPO,
        dpo(0.3),
    ),
    "a debate, the distilled form": (
        TURNS,
        {"rule": {"right_over_wrong": {"pattern": "^[^0-9]*([0-9])", "column": "digit"}}, "labels": False},
        {"dpo_distilled": {"beta": 0.3}},
        divergence(0.3),
    ),
    "a judge, in both orders": (
        {**FIRST, **ORDERS},
        {
            "reads": {"ab": "ab", "ba": "ba"},
            "rule": {"best_of": {"verdict": "[01]", "names": {"ab": ["0", "1"], "ba": ["1", "0"]}}},
        },
        DPO,
        dpo(0.3),
    ),
    "a teacher over its student": (FIRST, {"rule": {"declared": {"chosen": "t0", "rejected": "s0"}}}, DPO, dpo(0.3)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_and_a_plain_loop_make_the_same_pairs_and_end_with_the_same_weights(case: str, tmp_path: Path) -> None:
    turns, made, objective, loss = CASES[case]
    lines = saved(tmp_path)
    own = [name for name, (agent, _) in turns.items() if agent != "j"]
    streams: dict[str, Any] = {
        name: {"generated_by": agent, **({"reads": dict(zip(("one", "other"), heard, strict=True)), "template": HEARS}
                                         if heard else {})}
        for name, (agent, heard) in turns.items()
    }  # fmt: skip
    streams["pairs"] = {"consensus_of": own, "pairs": True, **made}
    run = mesh(tmp_path, streams, objective)
    rows = examine(run.plan()).streams["train"].rows.tolist()
    nets = {name: LlamaForCausalLM.from_pretrained(tmp_path / name).eval() for name in "tjs"}
    known = {row: lines[row]["digit"] for row in rows}
    choose = {
        "a judge, in both orders": judged("t0", "s0", ("ab", "ba")),
        "a teacher over its student": declared("t0", "s0"),
    }.get(case) or right_over_wrong(own, known)
    plain = Argued(
        nets["s"], nets["t"], {}, 0, SEED, SIZE, loss, nets=nets, questions={row: lines[row]["q"] for row in rows},
        turns=turns, choose=choose, words=tokenizer(), new=NEW,
    )  # fmt: skip
    plain.argue(EPOCHS, lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True))
    result = run.run(backend="inline", out=tmp_path / "runs")
    (file,) = (tmp_path / "runs").glob("*/*/streams/pairs.jsonl")
    said = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = [
        (line["consensus"]["from"]["stream"], line["consensus"]["rejected"]["stream"]) if line["kept"]
        else line["dropped"] for line in said
    ]  # fmt: skip
    assert found == plain.made
    counts = Counter("pair" if isinstance(one, tuple) else one for one in plain.made)
    print(case, dict(counts))
    assert 0 < counts["pair"] < len(found)
    assert "judge" not in case or all(counts[why] for why in ("verdicts differ", "too few verdicts"))
    (file,) = (tmp_path / "runs").glob("*/*/summary.json")
    tally = json.loads(file.read_text(encoding="utf-8"))["streams"]["pairs"]
    assert {"pair": tally["kept"], **tally["dropped"]} == counts
    for line in (line for line in said if line["kept"]):
        rejected = line["consensus"]["rejected"]
        assert line["producer"] == turns[line["consensus"]["from"]["stream"]][0]
        assert rejected["agent"] == turns[rejected["stream"]][0] and rejected["text"] != line["text"]
    start = LlamaForCausalLM.from_pretrained(tmp_path / "s").state_dict()
    for name, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, nets["s"].state_dict()[name]), name
        assert not torch.equal(value, start[name]), name
