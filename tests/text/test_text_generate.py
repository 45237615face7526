"""Greedy texts are those of transformers' `generate`, drawn ones those of a loop without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_texts import architecture, bpe, model
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.spec import SamplingSpec
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.text.encoder import Encoder
from kdmesh.text.generate import choose, generate, noise, refuse_writer
from kdmesh.text.prompts import Asking, asked, ends, told
from kdmesh.text.views import PromptView

PROMPTS = ["the cat", "a", "who is it that sat on", "the mat", "a dog ran after the"]
PAD, NEW = 0, 8


def writer(kind: str = "llama", **more: Any) -> Any:
    more |= {"attention": "eager"} if kind in ("gemma2", "bloom") else {}
    made = model("language_modelling", config=architecture(kind, initializer_range=0.5), **more)
    return made.eval()


def tokens() -> list[list[int]]:
    return [bpe()(one, add_special_tokens=False)["input_ids"] for one in PROMPTS]


def how(**more: Any) -> SamplingSpec:
    return SamplingSpec(max_new_tokens=NEW, **more)


def theirs(net: Any, prompts: list[list[int]], **more: Any) -> list[list[int]]:
    """The prompts in one batch, padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    given = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": PAD, **more}
    return net.generate(input_ids=ids, attention_mask=mask, **given)[:, width:].tolist()


def cut(text: list[int], ends: set[int]) -> list[int]:
    """Up to the token that ends it."""
    return next((text[: at + 1] for at, token in enumerate(text) if token in ends), text)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "gemma2", "cohere", "bloom"])
def test_greedy_texts_are_those_of_generate(kind: str) -> None:
    made, prompts = writer(kind), tokens()
    free = theirs(made.net, prompts, eos_token_id=None)
    assert all(len(one) == NEW for one in free)
    end = {free[0][3], free[1][5]}  # tokens that are written
    expected = [cut(one, end) for one in theirs(made.net, prompts, eos_token_id=sorted(end))]
    assert len({len(one) for one in expected}) > 1
    ours = generate(made, prompts, how(greedy=True), ends=end, pad=PAD, rows=len(prompts))
    assert ours == expected
    alone = [theirs(made.net, [one], eos_token_id=sorted(end))[0] for one in prompts]
    assert [cut(one, end) for one in alone] == expected
    for rows in (1, 2, 3):
        assert generate(made, prompts, how(greedy=True), ends=end, pad=PAD, rows=rows) == expected


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("more", [{}, {"temperature": 0.7, "top_k": 20}, {"top_p": 0.8}, {"top_k": 30, "top_p": 0.5}])
def test_drawn_texts_are_those_of_a_loop_whatever_the_company(kind: str, more: dict[str, Any]) -> None:
    made, prompts, end = writer(kind), tokens() * 2, set(range(40))
    seeds = [7 * at for at in range(len(prompts))]
    expected = [loop(made.net, one, seed, end, **more) for one, seed in zip(prompts, seeds, strict=True)]
    assert expected[0] != expected[len(PROMPTS)]  # the same prompt under another seed
    assert len({len(one) for one in expected}) > 1
    for rows in (len(prompts), 3):
        ours = generate(made, prompts, how(**more), ends=end, pad=PAD, rows=rows, seeds=seeds)
        assert ours == expected
    order = [3, 0, 9, 5]
    some = generate(
        made, [prompts[at] for at in order], how(**more), ends=end, pad=PAD, rows=4, seeds=[seeds[at] for at in order]
    )
    assert some == [expected[at] for at in order]


@torch.no_grad()
def loop(
    net: Any, prompt: list[int], seed: int, end: set[int], temperature: float = 1, top_k: int = 0, top_p: float = 1
) -> list[int]:
    """A row by itself, forwarded as a whole for each token, by transformers' own processors."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    drawn, text = torch.Generator().manual_seed(seed), list[int]()
    while len(text) < NEW and (not text or text[-1] not in end):
        scores = net(torch.tensor([prompt + text]), use_cache=False).logits[:, -1]
        for warper in (
            TemperatureLogitsWarper(float(temperature)) if temperature != 1 else None,
            TopKLogitsWarper(top_k) if top_k else None,
            TopPLogitsWarper(top_p) if top_p < 1 else None,
        ):
            scores = scores if warper is None else warper(None, scores)
        sums = scores.softmax(-1)[0].double().cumsum(0)
        point = torch.rand((), generator=drawn, dtype=torch.float64) * sums[-1]
        text.append(int((sums <= point).sum()))
    return text


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -torch.inf]])
    count = 20_000
    found = choose(logits.expand(count, 5), how(), noise(3, count))
    shares = torch.bincount(found, minlength=5) / count
    assert (shares - logits[0].softmax(0)).abs().max() < 0.012  # 3.5 standard errors of 1/2
    few = choose(logits.expand(count, 5), how(top_p=0.7), noise(4, count))
    assert set(few.tolist()) == {0, 1}  # 0.64 alone, 0.88 together
    assert set(choose(logits.expand(count, 5), how(top_k=3), noise(5, count)).tolist()) == {0, 1, 2}
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    hidden = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]] * 2)
    assert choose(hidden, how(), edges).tolist() == [1, 2]  # never what has no probability


def test_a_text_ends_with_the_token_that_completes_a_string() -> None:
    made, prompts, decode = writer(), tokens(), bpe().decode
    free = generate(made, prompts, how(greedy=True), ends=(), pad=PAD, rows=5)
    stop = [decode(free[0])[2:4], decode(free[2])[1:4]]
    assert all(stop)
    ours = generate(made, prompts, how(greedy=True, stop=stop), ends=(), pad=PAD, rows=5, decode=decode)
    for one, whole in zip(ours, free, strict=True):
        assert one == whole[: len(one)]
        assert len(one) == NEW or any(text in decode(one) for text in stop)
        assert not any(text in decode(one[:-1]) for text in stop)
    assert len(ours[0]) < NEW


def test_a_model_with_an_adapter_writes() -> None:
    pytest.importorskip("peft")
    made, prompts = writer(lora={"rank": 2}), tokens()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    expected = theirs(made.net, prompts, eos_token_id=None)
    assert generate(made, prompts, how(greedy=True), ends=(), pad=PAD, rows=5) == expected
    with made.net.disable_adapter():
        assert theirs(made.net, prompts, eos_token_id=None) != expected
    with pytest.raises(MeshError, match="a trained prefix writes no texts"):
        refuse_writer(writer(prefix={"length": 3}), "streams.x")


def test_half_precision_is_asked_for_by_who_calls() -> None:
    made = writer()
    with torch.autocast("cpu", torch.bfloat16):
        half: list[list[int]] = generate(made, tokens(), how(greedy=True), ends=(), pad=PAD, rows=5)
        expected = theirs(made.net, tokens(), eos_token_id=None)
    assert half == expected


def test_who_cannot_write_is_refused() -> None:
    with pytest.raises(MeshError, match="a Linear writes no texts"):
        refuse_writer(torch.nn.Linear(2, 2), "streams.x")
    with pytest.raises(MeshError, match="a TextModel writes no texts"):
        refuse_writer(model(), "streams.x")
    refuse_writer(writer(), "streams.x")
    made = writer()
    made.net._is_stateful = True
    with pytest.raises(MeshError, match="llama keeps what it has read in another way"):
        refuse_writer(made, "streams.x")


TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ':' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant:' }}{% endif %}"
)


def encoder(template: str | None = None, max_length: int = 64) -> Encoder:
    from kdmesh.text import tokenizers

    words = tokenizers.loads(tokenizers.dumps(bpe()))
    words.chat_template = template
    return Encoder(words, "language_modelling", max_length=max_length)


def test_a_model_is_asked_with_the_tokens_that_training_puts_before_an_answer() -> None:
    turns = (("user", "who is it?"), ("assistant", "a cat"), ("user", "where?"), ("assistant", "on the mat"))
    for one, sample in (
        (encoder(), Sample("the mat", prompt="on ")),
        (encoder(TEMPLATE), Sample(messages=turns)),
    ):
        tokens = one.encode(Texts([sample]))[0].whole()
        ids = tokens.ids[0].tolist()
        prompt = asked(one, sample)
        assert ids[: len(prompt)] == prompt and len(prompt) < len(ids)
        assert int(tokens.units[-1]) >= len(prompt) - 1
        later: Tensor = tokens.units[tokens.units >= len(prompt) - 1]
        assert later[0] == len(prompt) - 1  # the last answer begins there
        assert ends(one, sample) == {one.tokenizer.eos_token_id}
        assert ids[-1] in ends(one, sample)


def test_an_agent_sees_a_prompt_of_its_own() -> None:
    view = PromptView("{{ prompt }} ({{ kind }}; {{ text }})", "agents.h.view.prompt")
    assert view(Sample("19", prompt="7+12="), {"kind": "sum"}).prompt == "7+12= (sum; 19)"
    turns = (("system", "add"), ("user", "1+1"), ("assistant", "2"), ("user", "7+12", "{}"), ("assistant", "19"))
    seen = view(Sample(messages=turns), {"kind": "sum"})
    assert seen.messages == (*turns[:3], ("user", "7+12 (sum; 19)", "{}"), turns[4])
    with pytest.raises(MeshError, match="'text' is undefined") as unanswered:
        view(Sample(messages=turns[:4]), {"kind": "sum"})
    assert unanswered.value.instead == "what there is: kind, prompt (the data answer nothing)"
    assert asked(encoder(TEMPLATE), seen)[-8:] == asked(encoder(TEMPLATE), Sample(messages=turns))[-8:]
    with pytest.raises(MeshError, match=r"line 3: the template fails: 'kind' is undefined") as caught:
        view(Sample("19", prompt="7+12=", at="line 3"), {"sort": "sum"})
    assert caught.value.where == "agents.h.view.prompt" and caught.value.instead == "what there is: sort, prompt, text"
    with pytest.raises(MeshError, match="no turn stands before the assistant's"):
        view(Sample(messages=turns[4:]), {"kind": "sum"})


@pytest.mark.parametrize(
    "template",
    [
        "{{ prompt * 1000000000 }}",
        "{{ 9**9**9 }}",
        "{{ 1000000000 * [prompt] }}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{{ '%999d' % i }}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_would_take_all_memory_is_stopped(template: str) -> None:
    view = PromptView(template, "streams.a.template")
    with pytest.raises(MeshError, match="line 3: the template fails") as caught:
        view(Sample("19", prompt="7+12=", at="line 3"), {})
    assert (caught.value.where, caught.value.instead) == ("streams.a.template", "one that writes a prompt")


def test_a_template_may_multiply() -> None:
    view = PromptView("{{ '-' * 3 }}{{ 2 * 3 }}{{ 2**10 }}{{ 2**-1 }}", "streams.a.template")
    assert view(Sample("19", prompt="7+12="), {}).prompt == "---610240.5"


CHAT = (("system", "add"), ("user", "who?"), ("assistant", "a cat"), ("user", "where?"), ("assistant", "on the mat"))


@pytest.mark.parametrize("kind", ["prompt", "text", "messages"])
def test_given_answers_stay_after_another_prompt(kind: str) -> None:
    sample = {
        "prompt": Sample("the mat", prompt="on "),
        "text": Sample("the mat"),
        "messages": Sample(messages=CHAT),
    }[kind]
    one = encoder(TEMPLATE, 96)
    (given,) = one.encode(Texts([sample]))[0].samples()
    table = Table(Texts([sample]), None, classes=0, columns={"hint": ["near a dog"]})
    (seen,) = told(one, table, "{{ hint }} {{ prompt }}", "h", [0], one.encode(table.x)[0]).samples()
    assert seen.targets == given.targets and seen.spans == given.spans and len(seen.units) == len(given.units)
    assert [seen.ids[unit + 1] for unit in seen.units] == given.targets
    first = seen.units[-1] + 2 - len(one.tokenizer("on the mat</s>")["input_ids"]) if kind == "messages" else 0
    prompt = one.tokenizer.decode(seen.ids[: first or seen.units[0] + 1])
    assert "near a dog" in prompt and "near a dog" not in one.tokenizer.decode(given.ids)
    asked_with = Asking(one, table, "{{ hint }} {{ prompt }}", "h")(0)
    assert seen.ids[: len(asked_with)] == asked_with


def test_given_answers_that_an_agent_cannot_be_told_are_refused_by_sample() -> None:
    one = encoder(TEMPLATE)
    for sample in (Sample("the mat", prompt="on ", at="line 3"), Sample(messages=CHAT, at="line 3")):
        table = Table(Texts([sample]), None, classes=0)
        with pytest.raises(MeshError, match=r"line 3: as h is told it, it has \d+ tokens, more than the 64") as caught:
            told(one, table, "{{ prompt * 70 }}", "h", [0], one.encode(table.x)[0])
        assert caught.value.where == "agents.h.view.prompt" and caught.value.instead
    marked = (  # forgets earlier turns where the last one asks otherwise
        "{% for m in (messages if 'where' in messages[3]['content'] else messages[3:]) %}{{ '<s>' + m['role'] }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '</s>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '</s>' }}{% endif %}{% endfor %}"
    )
    forgets = encoder(marked, 96)
    table = Table(Texts([Sample(messages=CHAT, at="line 3")]), None, classes=0)
    with pytest.raises(MeshError, match="line 3: after the prompt that h is told, its answers become other tokens"):
        told(forgets, table, "who?", "h", [0], forgets.encode(table.x)[0])


@pytest.mark.parametrize(
    ("sample", "template", "said"),
    [
        (Sample("a cat", at="line 3"), None, "line 3 has no prompt"),
        (Sample(messages=(("user", "a"),), at="line 4"), None, "line 4, field 'messages': the tokenizer has no chat"),
        (Sample(messages=(("user", "a"),), at="line 5"), "{{ raise_exception('no') }}", "line 5, .* refuses the turns"),
        (Sample(fault="line 6 is broken"), None, "line 6 is broken"),
    ],
)
def test_what_asks_nothing_is_refused_by_name(sample: Sample, template: str | None, said: str) -> None:
    with pytest.raises(MeshError, match=said) as caught:
        asked(encoder(template), sample)
    assert caught.value.instead
