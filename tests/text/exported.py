"""Whole runs of small models, and their exported folders asked as a user asks them: used by test_text_exported.py."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import kdmesh
from kdmesh.signals.lazy import dense
from kdmesh.streams.texts import Sample, Texts
from kdmesh.text.encoder import Encoder
from kdmesh.text.source import quiet

CAUSAL, ENCODERS = ("gpt2", "llama", "qwen2", "gemma2"), ("bert", "roberta")
TUNED = ("plain", "lora", "lora tied", "prefix")
TOKENIZERS = ("bos", "no bos", "eos unlike the config's")
WORDS = ["the red dog runs", "a blue cat sleeps", "my old bird eats", "that small fish sings"]
TEXTS = [f"{one} near {place}." for one in WORDS for place in ("home", "the river", "a hill", "my door")]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<pad>", "<unk>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TIED = {"gpt2": ["lm_head", "wte"], "bert": ["word_embeddings", "query"], "roberta": ["word_embeddings", "query"]}


class Case(NamedTuple):
    """What is trained: an architecture, what of it, by which tokenizer, on which kind of text, in which precision."""

    kind: str
    tuned: str
    tokenizer: str
    data: str = "text"
    dtype: str = "float32"


def cases() -> list[Case]:
    """Every combination; language models learn plain text, answers to prompts, and chats."""
    found = [
        Case(kind, tuned, tokenizer, data)
        for kind, tuned, tokenizer in itertools.product(CAUSAL, TUNED, TOKENIZERS)
        for data in ("text", "prompt", "chat")
    ]
    found += [Case(*each) for each in itertools.product(ENCODERS, TUNED, TOKENIZERS)]
    half = [Case(kind, "plain", name, dtype="bfloat16") for kind in (*CAUSAL, *ENCODERS) for name in TOKENIZERS]
    return [*found, *half]


def make_tokenizer(case: Case) -> Any:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    number = made.token_to_id
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if case.tokenizer == "no bos":
        names |= {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    else:
        names["bos_token"] = "<s>"
        end = "" if case.kind in CAUSAL else " </s>"
        made.post_processor = processors.TemplateProcessing(
            single=f"<s> $A{end}",
            pair=f"<s> $A{end} $B{end}",
            special_tokens=[("<s>", number("<s>")), ("</s>", number("</s>"))],
        )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **names)
    fast.chat_template = TEMPLATE
    return fast


def make_base(case: Case, folder: Path) -> Any:
    """A folder of random weights and a tokenizer, as a hub has them; returns the tokenizer."""
    tokenizer = make_tokenizer(case)
    wide = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    grouped = {**wide, "num_key_value_heads": 1, "max_position_embeddings": 96}
    shape: dict[str, Any] = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 96},
        "llama": grouped,
        "qwen2": grouped,
        "gemma2": {**grouped, "head_dim": 16, "sliding_window": 32},
        "bert": {**wide, "max_position_embeddings": 96},
        "roberta": {**wide, "max_position_embeddings": 112},
    }[case.kind]
    more = {"tie_word_embeddings": True} if case.kind in CAUSAL else {"num_labels": 4}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if case.tokenizer == "eos unlike the config's":
        ends["eos_token_id"] = tokenizer("a", add_special_tokens=False)["input_ids"][0]  # a letter, too
    config = transformers.AutoConfig.for_model(
        case.kind, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **ends, **shape, **more
    )
    torch.manual_seed(0)
    auto = transformers.AutoModelForCausalLM if case.kind in CAUSAL else transformers.AutoModelForSequenceClassification
    with quiet():
        auto.from_config(config).to(getattr(torch, case.dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def sample(case: Case, number: int) -> dict[str, Any]:
    text, answer = TEXTS[number], f"it is {WORDS[number % 4].split()[1]}."
    if case.kind not in CAUSAL:
        return {"text": text, "label": text.split()[2]}
    if case.data == "chat":
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        return {"messages": turns}
    return {"text": text} if case.data == "text" else {"prompt": text, "text": f" {answer}"}


def run(case: Case, root: Path) -> tuple[Any, Any]:
    """Train a few steps; the result, and the tokenizer that it was given."""
    tokenizer = make_base(case, root / "base")
    rows = [sample(case, number) for number in range(len(TEXTS))]
    (root / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {name: name for name in rows[0]}
    hf: dict[str, Any] = {"path": str(root / "base"), "dtype": case.dtype}
    if case.kind == "gemma2":  # transformers writes its capped scores for no other kind
        hf["attention"] = "eager"
    if case.tuned.startswith("lora"):
        tied = TIED.get(case.kind, ["lm_head", "embed_tokens", "q_proj"])
        hf["lora"] = {"rank": 2, **({"targets": tied} if case.tuned == "lora tied" else {})}
        if case.tuned == "lora" and case.kind == "gemma2":
            hf["lora"]["targets"] = ["q_proj", "v_proj"]
    if case.tuned == "prefix":
        hf["prefix"] = {"length": 3}
    mesh = kdmesh.Mesh(
        name="exported",
        task="language_modelling" if case.kind in CAUSAL else "classification",
        data={"dataset": {"text": {"path": str(root / "data.jsonl"), **columns}}, "validation": 0, "test": 4},
        text={"max_length": 64},
        train={"steps": 3, "batch_size": 4, "optimizer": {"adamw": {"lr": 0.02}}},
    )
    mesh.agent("s", {"hf": hf})
    mesh.flow("labels", "s", objective="ce")
    return mesh.run(backend="inline", out=root / "runs"), tokenizer


class Stop(transformers.LogitsProcessor):
    """Says one token as the third new one, and letters before it and after."""

    def __init__(self, first: int, letter: int, end: int) -> None:
        self.first, self.letter, self.end = first, letter, end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = torch.full_like(scores, -1e9)
        said[:, self.end if input_ids.shape[1] == self.first + 2 else self.letter] = 0.0
        return said


def prove(case: Case, root: Path) -> float:
    """Train, export, and ask the folder as a user does; the largest difference to what the run's module answers."""
    result, given = run(case, root)
    folder = result.folder / "agents" / "s"
    told = json.loads((result.folder / "summary.json").read_text())["agents"]["s"]["export"]
    assert told["by"] == "transformers" and told["samples"] == 4 and not told["problem"], told
    tokenizer, net = transformers.AutoTokenizer.from_pretrained(folder), read(case, folder)
    one = sample(case, 1)
    messages = tuple((turn["role"], turn["content"]) for turn in one.get("messages", ())) or None
    own = Sample(one.get("text", ""), prompt=one.get("prompt"), messages=messages)
    task = "language_modelling" if case.kind in CAUSAL else "classification"
    encoded, _ = Encoder(given, task, max_length=64).encode(Texts([own]))
    x = encoded.whole()
    if messages:
        ids = tokenizer.apply_chat_template(one["messages"], tokenize=True, return_dict=True)["input_ids"]
    else:
        ids = tokenizer(one.get("prompt", one["text"]))["input_ids"]
        if "prompt" in one:
            ids = [*ids, *tokenizer(one["text"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert ids == x.ids[0].tolist(), (tokenizer.convert_ids_to_tokens(ids), tokenizer.convert_ids_to_tokens(x.ids[0]))
    module = result["s"].module
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
    with torch.no_grad(), quiet():
        mine, measured, theirs = module.net(**inputs).logits, dense(module(x)), net(**inputs).logits
    assert theirs.dtype == getattr(torch, case.dtype)
    if case.dtype == "bfloat16":
        assert torch.equal(mine, theirs)
    answers = theirs if task == "classification" else theirs[0][x.units]
    if task == "language_modelling":
        stops(tokenizer, net, int(x.targets[-1]), case)
    again = kdmesh.load(folder)
    assert next(again.parameters()).dtype == theirs.dtype
    apart = (mine.float() - theirs.float()).abs().max()
    if case.dtype == "float32":
        apart = torch.maximum(apart, (answers - measured).abs().max())
        apart = torch.maximum(apart, (dense(again.model(x)) - measured).abs().max())
    return float(apart.detach())


def read(case: Case, folder: Path) -> Any:
    """As the card says."""
    auto = transformers.AutoModelForCausalLM if case.kind in CAUSAL else transformers.AutoModelForSequenceClassification
    with quiet():
        net = auto.from_pretrained(folder).eval()
    if case.tuned == "prefix":
        import peft

        with warnings.catch_warnings():  # peft asks transformers by old names
            warnings.simplefilter("ignore", FutureWarning)
            net = peft.PeftModel.from_pretrained(net, folder / "adapter").eval()
    return net


def stops(tokenizer: Any, net: Any, learned: int, case: Case) -> None:
    """The model generates until the token that ended what it learned, and not until letters; then no further."""
    end = tokenizer.eos_token_id if case.data == "text" else learned
    asked = tokenizer("the red", return_tensors="pt")
    letter = tokenizer("a", add_special_tokens=False)["input_ids"][0]
    first = asked["input_ids"].shape[1]
    with quiet():
        said = net.generate(
            input_ids=asked["input_ids"],
            attention_mask=asked["attention_mask"],
            max_new_tokens=9,
            do_sample=False,
            logits_processor=transformers.LogitsProcessorList([Stop(first, letter, end)]),
        )
    new = said[0, first:].tolist()
    assert new == [letter, letter, end], tokenizer.convert_ids_to_tokens(new)
    configs = [net.config, net.generation_config]
    assert all(config.eos_token_id == end for config in configs), [config.eos_token_id for config in configs]
