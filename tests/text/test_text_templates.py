"""Chats are the tokens that `apply_chat_template` gives, whatever the template and the tokenizer."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from kdmesh.errors import MeshError
from kdmesh.streams.texts import Sample, Texts

pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kdmesh.text.encoder import Encoder
from kdmesh.text.template import given

SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>", "[TOOL_CALLS]"]
CORPUS = ["the dog runs near the house", "[INST] hi more [/INST] the cat", 'name: {"a": 1} so it is \n\n'] * 4
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }}\n{% else %}ASSISTANT: {{ m.content }}</s>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TURNS = (
    "{% for m in messages %}<|{{ 'assistant' if m.role == 'assistant' else 'user' }}|>{{ m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
MARKED = (
    "{% for m in messages %}<|user|>{% if m.role == 'assistant' %}{% generation %}{{ m.content | upper }}<|end|>"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
)
THINKING = (  # as Qwen3 has it: of the last turn the reasoning, too, and calls of tools
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}"
    "{% if m.role == 'assistant' %}<|assistant|>{% set thought = m.reasoning_content or '' %}"
    "{% set words = m.content or '' %}{% if '</think>' in words %}"
    "{% set thought = words.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set words = words.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ words }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|end|>"
    "{% else %}<|user|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CALLING = (  # as Mistral has it: no generation prompt; a turn that calls has no words
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.tool_calls is defined %}[TOOL_CALLS] [{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}]"
    "{{ eos_token }}{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
CALL = {"type": "function", "function": {"name": "near", "arguments": {"a": "the dog"}}}
CHAT = (("user", "hi"), ("assistant", "the dog"), ("user", "more"), ("assistant", " the cat\n"))
USES = (
    ("user", "hi"),
    ("assistant", "", json.dumps({"content": None, "tool_calls": [CALL]})),
    ("tool", "more"),
    ("assistant", "the cat", json.dumps({"reasoning_content": "so it is"})),
)
THOUGHT = (*CHAT[:2], ("user", "more"), ("assistant", "<think>\nso it is\n</think>\n\nthe cat"))


def tokenizer(kind: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """Pieces with a mark for space, bytes, or WordPiece; with a first token of its own, as Llama's."""
    if kind == "pieces":
        known = sorted(set("".join(CORPUS).replace(" ", "").replace("\n", "")) | set("!?:<>|_/"))
        vocabulary = [*SPECIAL, *known, *(f"##{one}" for one in known), "the", "dog", "cat"]
        made = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(vocabulary)}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.add_special_tokens(SPECIAL)
    else:
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        trainer = {"vocab_size": 400, "special_tokens": SPECIAL, "show_progress": False}
        if kind == "bytes":
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            made.decoder = decoders.ByteLevel()
            trainer["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
        elif kind == "prepend":  # as Llama's, before there was a scheme
            made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        else:
            made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
            made.decoder = decoders.Metaspace(prepend_scheme=kind)
        made.train_from_iterator(CORPUS, trainers.BpeTrainer(**trainer))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    found = PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **names)
    found.chat_template = template
    return found


KINDS = ["always", "first", "never", "prepend", "bytes", "pieces"]


def read(tokenizer, sample, **more):
    """A sample's ids, which of them are learned, its spans, and the report."""
    how = {"max_length": 512, "over": "refuse", "agent": "s", **more}
    encoded, report = Encoder(tokenizer, "language_modelling", **how).encode(Texts([sample]))
    batch = encoded.whole()
    return batch.ids[0].tolist(), [unit + 1 for unit in batch.units.tolist()], batch.spans[:, 1:].tolist(), report


def own(tokenizer, sample):
    """The ids that transformers gives of a chat."""
    turns, tools = given(sample)
    return list(tokenizer.apply_chat_template(turns, tools=tools, tokenize=True, return_dict=True)["input_ids"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_is_the_tokens_of_its_template(kind: str) -> None:
    for template in (LLAMA, VICUNA, TURNS, NO_END, MARKED, THINKING, CALLING):
        made = tokenizer(kind, template)
        for messages in (CHAT, CHAT[:2], *([(("system", "so"), *CHAT)] if template not in (LLAMA, CALLING) else [])):
            sample = Sample(messages=messages)
            ids, learned, spans, _ = read(made, sample)
            expected = own(made, sample)
            assert ids == expected + [made.eos_token_id] * (template == NO_END)
            asked = made.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
            if messages == CHAT[:2] and template in (LLAMA, TURNS, VICUNA, THINKING, CALLING):  # what a model is asked
                first = asked["input_ids"]
                assert ids[: len(first)] == first and learned[0] == len(first)
            assert spans[0][0] == 0 and all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


LEARNED = [
    (LLAMA, CHAT, [" the dog </s>", " the cat </s>"], {}),
    (VICUNA, CHAT, [" the dog</s>", "  the cat\n</s>"], {}),
    (TURNS, CHAT, ["the dog<|end|>", " the cat\n<|end|>"], {}),
    (NO_END, CHAT[:2], [" the dog", "</s>"], {}),
    (MARKED, CHAT, ["THE DOG<|end|>", " THE CAT\n<|end|>"], {}),
    (THINKING, CHAT[:2], ["<think>\n\n</think>\n\nthe dog<|end|>"], {}),
    (THINKING, THOUGHT, ["the dog<|end|>", "<think>\nso it is\n</think>\n\nthe cat<|end|>"], {}),
    (THINKING, THOUGHT[:1] + THOUGHT[3:] + CHAT[:2], ["the cat<|end|>", "<think>\n\n</think>\n\nthe dog<|end|>"], 1),
    (TURNS, THOUGHT[2:], ["<think>\nso it is\n</think>\n\nthe cat<|end|>"], {}),
    (
        THINKING,
        USES,
        [
            '<tool_call>{"name": "near", "arguments": {"a": "the dog"}}</tool_call><|end|>',
            "<think>\nso it is\n</think>\n\nthe cat<|end|>",
        ],
        {},
    ),
    (
        CALLING,
        USES,
        ['[TOOL_CALLS] [{"name": "near", "arguments": {"a": "the dog"}}]</s>', " the cat</s>"],
        {"reasoning_content": 1, "tools": 1, "turns of role 'tool'": 1},
    ),
]


@pytest.mark.parametrize(("template", "messages", "words", "unread"), LEARNED)
def test_what_the_assistant_writes_is_learned_and_what_is_not_written_is_said(template, messages, words, unread):
    made = tokenizer("bytes", template)
    sample = Sample(messages=messages, tools=json.dumps([CALL]) if messages == USES else None)
    ids, learned, _, report = read(made, sample)
    runs: list[list[int]] = []
    for before, at in zip([-2, *learned], learned, strict=False):
        if at != before + 1 or ids[before] in (made.eos_token_id, made.convert_tokens_to_ids("<|end|>")):
            runs.append([])
        runs[-1].append(ids[at])
    assert [made.decode(run) for run in runs] == words
    assert dict(report.unread) == ({"<think> in content": 1} if unread == 1 else unread)


def test_a_templates_own_marks_are_those_of_transformers() -> None:
    made = tokenizer("bytes", MARKED)
    made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)  # else transformers finds no space
    turns, _ = given(Sample(messages=CHAT))
    told = made.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    ids, learned, _, _ = read(made, Sample(messages=CHAT))
    assert ids == told["input_ids"] and learned == [at for at, mask in enumerate(told["assistant_masks"]) if mask]


def test_unlike_templates_agree_on_which_characters_are_learned() -> None:
    thinking = Sample(messages=(*CHAT[:1], THOUGHT[3], *CHAT))
    for sample, templates in ((Sample(messages=CHAT), (LLAMA, VICUNA, TURNS)), (thinking, (THINKING, LLAMA))):
        ends = []
        for template, kind in zip(templates, ("first", "bytes", "never"), strict=False):
            ids, learned, spans, report = read(made := tokenizer(kind, template), sample)
            words = {made.decode(ids[at]).strip(): tuple(span) for at, span in zip(learned, spans, strict=True)}
            ends.append((words["cat"][0], max(end for _, end in spans)))
            if template is not THINKING:  # which leaves the reasoning of earlier turns out
                assert report.characters == max(end for _, end in spans)
        assert len(set(ends)) == 1


def test_a_tokenizer_whose_chats_are_not_its_templates_text_is_refused() -> None:
    made = tokenizer("bytes", TURNS)
    inner = made.apply_chat_template

    def doubled(turns, tokenize=True, **more):
        found = inner(turns, tokenize=tokenize, **more)
        return {"input_ids": found["input_ids"] * 2} if tokenize else found

    made.apply_chat_template = doubled
    with pytest.raises(MeshError, match=r"`apply_chat_template` gives \d+ tokens, other than"):
        read(made, Sample(messages=CHAT))


# a prompt and a text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("prompt", "text"),
    [("hi:", " the dog"), ("hi:", "the dog"), ("hi: ", "the dog"), ("[INST] hi [/INST]", " the cat"), ("", "the dog")],
)
def test_a_text_goes_on_from_the_tokens_that_a_model_is_asked_with(kind: str, prompt: str, text: str) -> None:
    made = tokenizer(kind)
    ids, learned, spans, report = read(made, Sample(text, prompt=prompt))
    asked = made(prompt)["input_ids"]
    assert ids[: len(asked)] == asked and learned[0] == len(asked)
    assert ids[-1] == made.eos_token_id and spans[-1] == [len(text), len(text)] and report.characters == len(text)
    whole = made(prompt + text)["input_ids"]
    assert made.decode(ids[:-1]) == made.decode(whole)
    if whole[: len(asked)] == asked:
        assert ids[:-1] == whole


def test_a_prompt_that_the_text_changes_is_left_out_with_what_to_write() -> None:
    made = Tokenizer(models.WordLevel({token: n for n, token in enumerate(["<unk>", "</s>", "a", "b", "ab"])}, "<unk>"))
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")
    with pytest.raises(MeshError, match="line 3, field 'prompt': the tokenizer makes other tokens") as error:
        read(found, Sample("b", prompt="a", at="t.csv, line 3"))
    assert "space" in error.value.instead


# samples that cannot be read

BAD = [
    (LLAMA, (("system", "so"), *CHAT), "the chat template refuses them: no system role"),
    (TURNS, (*CHAT[:1], ("assistant", " ")), "an empty turn of role 'assistant'"),
    (TURNS.replace("m.content", "m.content | upper"), CHAT, "changes the words of role 'assistant'"),
    (CALLING.replace("m.tool_calls is defined", "false"), USES[:2], "leaves out tool_calls"),
]


@pytest.mark.parametrize(("template", "messages", "why"), BAD)
def test_a_bad_chat_is_left_out_and_counted(template, messages, why) -> None:
    made = tokenizer("bytes", template)
    bad = Sample(messages=messages, at="chat.jsonl, line 2")
    if "upper" in template:  # no chat of it can be read
        with pytest.raises(MeshError, match=why):
            read(made, bad, over="truncate")
        return
    if "false" in template:
        made.chat_template = template.replace("m.role == 'assistant'", "m.content is defined")
    texts = Texts([Sample(messages=CHAT), bad, Sample(messages=CHAT[:2])])
    encoder = Encoder(made, "language_modelling", max_length=512, agent="s")
    encoded, report = encoder.encode(texts)
    assert list(report.unreadable) == [1] and report.unreadable[1].startswith("chat.jsonl, line 2, field 'messages': ")
    assert why in report.unreadable[1] and encoded.counts[1] == 0 and not report.empty
    assert torch.equal(encoded.select(torch.tensor([0])).whole().ids, encoder.encode(texts[:1])[0].whole().ids)
    with pytest.raises(MeshError, match=r"chat.jsonl, line 2"):
        Encoder(made, "language_modelling", max_length=512, over="refuse").encode(texts)
