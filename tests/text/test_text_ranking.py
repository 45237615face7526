"""Ranking texts with models of transformers: cross-encoders teach a bi-encoder, in whole runs and a plain loop."""

from __future__ import annotations

import json
import math
import random
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from small_texts import architecture, bpe, save
from text_meshes import FILL, WORDS, bert, gpt
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

import kdmesh
from kdmesh.engine.check import check, examine
from kdmesh.hosts.modules import build
from kdmesh.plugins import registry
from kdmesh.streams.order import epoch_order
from kdmesh.streams.texts import Sample, Texts
from kdmesh.text.encoder import Encoder
from kdmesh.text.source import quiet

EPOCHS, SIZE = 2, 8
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
COLUMNS = {"query": "query", "candidates": "candidates", "relevance": "relevance"}
BY_OLD_NAMES = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft calls transformers


def still(made):
    """The settings of a model without dropout, whose training forward is that of a plain loop."""
    made["hf"]["config"] |= STILL
    return made


CROSS, OTHER = still(bert(16)), still(bert(16, 1, None))
BI = still(bert(8, 1, 280, bi_encoder={"similarity": "cosine", "scale": 5}))


def sentence(draw, kind):
    words = [draw.choice(FILL) for _ in range(draw.randint(2, 5))]
    words[draw.randrange(len(words))] = draw.choice(WORDS[kind])
    return " ".join(words)


def rows(count=44, most=4):
    """Queries with 2 to ``most`` candidates, of which those that name a thing of the query's kind are relevant."""
    draw, found = random.Random(0), []
    for number in range(count):
        kind, *others = random.Random(number).sample(sorted(WORDS), 3)
        kinds = [kind, *(draw.choice(others) for _ in range(1 + number % (most - 1)))]
        draw.shuffle(kinds)
        row = {"query": sentence(draw, kind), "candidates": [sentence(draw, one) for one in kinds]}
        found.append({**row, "relevance": [float(one == kind) for one in kinds]})
    return found


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    return put(tmp_path_factory.mktemp("lists"), rows())


def put(folder, given):
    path = folder / "lists.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in given))
    return str(path)


def mesh_of(path, columns=COLUMNS, **fields):
    train = {"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.02, "momentum": 0.9}}}
    data = {"dataset": {"text": {"path": path, **columns}}}
    return kdmesh.Mesh(**{"name": "ranked", "task": "ranking", "data": data, "seed": 7, "train": train, **fields})


# -- zero difference --


def tokens_of(encoder, samples, width=None):
    """Ids and mask of every text of these lists, by the tokenizer alone, and how many there are of each list."""
    pairs = [(one.text, candidate) for one in samples for candidate in one.candidates]
    alone = [text for one in samples for text in (one.text, *one.candidates)]
    given = (alone, None) if encoder.head.name == "bi_encoder" else tuple(map(list, zip(*pairs, strict=True)))
    how = {"padding": True} if width is None else {"padding": "max_length", "max_length": width}
    how["max_length"] = how.get("max_length", encoder.max_length)
    told = encoder.tokenizer(*given, return_tensors="pt", truncation=True, **how)
    return told["input_ids"], told["attention_mask"]


def types_of(encoder, ids, mask):
    """0 up to and with the first separator, then 1."""
    ends = (ids == encoder.facts["separator"]).long()
    return ((ends.cumsum(1) - ends) > 0).long() * mask


def cross(net, encoder, samples, columns, width=None):
    ids, mask = tokens_of(encoder, samples, width)
    scores = net(input_ids=ids, attention_mask=mask, token_type_ids=types_of(encoder, ids, mask)).logits[:, 0]
    counts = [len(one.candidates) for one in samples]
    return torch.stack([F.pad(s, (0, columns - len(s)), value=-math.inf) for s in scores.split(counts)])


def bi(net, encoder, samples, columns):
    ids, mask = tokens_of(encoder, samples)
    hidden = net(input_ids=ids, attention_mask=mask, token_type_ids=types_of(encoder, ids, mask)).last_hidden_state
    weights = mask[..., None].float()
    made = F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)
    parts = [
        F.pad(e, (0, 0, 0, 1 + columns - len(e))) for e in made.split([1 + len(one.candidates) for one in samples])
    ]
    embedded = torch.stack(parts)
    scores = 5 * (embedded[:, 1:] @ embedded[:, 0, :, None]).squeeze(-1)
    there = torch.tensor([[at < len(one.candidates) for at in range(columns)] for one in samples])
    return scores.masked_fill(~there, -math.inf)


def padded(length):
    return next(size for size in (8, 16, 24, 32, 40, 48, 56, 64) if size >= length)


@torch.no_grad()
def answers(net, encoder, samples, columns):
    """Of a teacher that does not train: eight lists of one shape at a time."""
    net.eval()
    shapes = [(padded(int(tokens_of(encoder, [one])[1].sum(1).max())), len(one.candidates)) for one in samples]
    found = torch.empty(len(samples), columns)
    for shape in sorted(set(shapes)):
        at = [number for number, own in enumerate(shapes) if own == shape]
        for start in range(0, len(at), 8):
            chosen = at[start : start + 8]
            full = chosen + chosen[-1:] * (8 - len(chosen))
            made = cross(net, encoder, [samples[number] for number in full], columns, shape[0])
            found[chosen] = made[: len(chosen)]
    return found


def nce(scores, labels):
    log_q = scores.masked_fill(labels < 0, -math.inf).log_softmax(1)
    gains = labels.clamp_min(0)
    shares = gains / gains.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return (-shares * torch.where(gains > 0, log_q, 0)).sum() / len(scores)


def margins(scores, target, labels):
    error = torch.where(labels >= 0, scores - target, 0)
    pairs = (labels[:, :, None] > labels[:, None, :]) & (labels >= 0)[:, None, :]
    squares = torch.where(pairs, (error[:, :, None] - error[:, None, :]).square(), 0)
    return (squares.sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)).sum() / len(scores)


def divergence(scores, target, labels):
    log_q = scores.log_softmax(1).masked_fill(labels < 0, math.log(torch.finfo(torch.float32).tiny))
    return F.kl_div(log_q, target, reduction="none").sum() / len(scores)


@pytest.mark.parametrize(("objective", "space"), [("margin_mse", "logits"), ("kl", "probs")])
def test_cross_encoders_teach_a_bi_encoder_as_a_plain_loop_does_bit_for_bit(objective, space, lists):
    """Three tokenizers, lists of unlike lengths, some cut: two teachers learn by InfoNCE, their mean teaches."""
    mesh = mesh_of(lists)
    for name, model in (("a", CROSS), ("b", OTHER), ("s", BI)):
        mesh.agent(name, model)
    mesh.connect("ensemble", teachers=["a", "b"], student="s", objective=objective, labels=0.5)
    plan = mesh.plan()
    assert {node.space for node in plan.consensus.values()} == {space}
    found = examine(plan)
    table, train = found.table, found.streams["train"].rows
    x, y, columns = list(table.texts[train]), table.y[train], table.y.shape[1]
    nets = {name: build(plan, name, found.reading, registry(), {}).net for name in "abs"}
    encoders = {name: found.reading.encoder(name) for name in "abs"}
    assert {type(net).__name__ for net in nets.values()} == {"BertForSequenceClassification", "BertModel"}
    batches = [at for epoch in range(EPOCHS) for at in epoch_order(7, "train", epoch, len(x)).split(SIZE)]
    make = partial(torch.optim.SGD, lr=0.02, momentum=0.9, fused=True)
    for name in "ab":
        optimizer = make(nets[name].parameters())
        for at in batches:
            optimizer.zero_grad()
            nce(cross(nets[name], encoders[name], [x[n] for n in at], columns), y[at]).backward()
            optimizer.step()
    told = [answers(nets[name], encoders[name], x, columns) for name in "ab"]
    target = (told[0].softmax(1) + told[1].softmax(1)) / 2 if space == "probs" else (told[0] + told[1]) / 2
    optimizer = make([p for p in nets["s"].parameters() if p.requires_grad])
    taught = margins if objective == "margin_mse" else divergence
    for at in batches:
        optimizer.zero_grad()
        own = bi(nets["s"], encoders["s"], [x[n] for n in at], columns)
        parts = {"labels": 0.5 * nce(own, y[at]), "teachers": 0.5 * taught(own, target[at], y[at])}
        sum(parts["labels" if edge.source == "labels" else "teachers"] for edge in plan.edges if edge.target == "s"
            ).backward()  # fmt: skip
        optimizer.step()
    result = mesh.run(backend="inline", strict_signals=True)
    for name in "abs":
        own = result[name].module.net.state_dict()
        worst = max((own[key] - other).abs().max().item() for key, other in nets[name].state_dict().items())
        assert worst == 0.0, name
    assert list(result.summary["agents"]["s"]["metrics"]["test"]) == ["ndcg", "mrr", "recall_at_k"]


# -- what comes out --


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folders of a cross-encoder without padding of its own, and of bi-encoders, one of low rank."""
    folder = tmp_path_factory.mktemp("exported")
    save(folder / "base", config=architecture("bert"), labels=["no"])
    mesh = mesh_of(put(folder, rows()), train={"steps": 3, "batch_size": 8, "optimizer": {"adam": {"lr": 0.02}}})
    mesh.agent("cross", gpt(16))
    mesh.agent("bi", BI)
    low = {"path": str(folder / "base"), "lora": {"rank": 2}, "max_length": 48}
    mesh.agent("low", {"hf": {**low, "bi_encoder": {"pooling": "cls"}}})
    mesh.flow("labels", ["cross", "bi", "low"], objective="info_nce")
    with quiet():
        return mesh.run(backend="inline", out=folder / "runs")


ASKED = [Sample("a red dog", candidates=("one cat", "this old bird", "two")), Sample("two", candidates=("the six",))]


@BY_OLD_NAMES
def test_plain_transformers_reads_a_cross_encoder_to_the_same_scores(exported):
    root = exported.folder / "agents" / "cross"
    assert exported.summary["agents"]["cross"]["export"]["by"] == "transformers"
    net, info = AutoModelForSequenceClassification.from_pretrained(root, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and net.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(root)
    with torch.no_grad():
        own = kdmesh.load(root)(ASKED)
        for sample, scores in zip(ASKED, own, strict=True):
            pairs = [tokenizer(sample.text, one, return_tensors="pt") for one in sample.candidates]
            alone = torch.cat([net.eval()(**pair).logits[0] for pair in pairs])
            torch.testing.assert_close(scores[: len(alone)], alone, atol=1e-5, rtol=1e-5)
            assert scores[len(alone) :].isneginf().all()


@BY_OLD_NAMES
@pytest.mark.parametrize("name", ["cross", "bi", "low"])
def test_the_program_of_the_card_scores_as_kdmesh_does(name, exported, monkeypatch, capsys):
    root = exported.folder / "agents" / name
    assert exported.summary["agents"][name]["export"]["by"] == "transformers"
    program = (root / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(root.parent)
    with quiet():
        exec(program, {})
    said = torch.tensor(json.loads(capsys.readouterr().out)).flatten()
    own = kdmesh.load(root)([Sample("A query.", candidates=("A candidate.", "Another one."))])[0].detach()
    torch.testing.assert_close(said, own[: len(said)], atol=1e-5, rtol=1e-5)


@BY_OLD_NAMES
def test_a_bi_encoder_comes_out_as_an_encoder_without_a_head(exported):
    for name in ("bi", "low"):
        net, info = AutoModel.from_pretrained(exported.folder / "agents" / name, output_loading_info=True)
        assert type(net).__name__ == "BertModel" and not info["missing_keys"] and not info["unexpected_keys"]
    assert (exported.folder / "agents" / "low" / "adapter").is_dir()


@BY_OLD_NAMES
def test_a_frozen_cross_encoder_is_read_from_its_folder_and_stays_there(exported, lists):
    mesh = mesh_of(lists, train={"steps": 2, "batch_size": 8})
    mesh.agent("t", {"hf": {"path": str(exported.folder / "agents" / "cross"), "max_length": 48}}, update="frozen")
    mesh.agent("s", BI)
    mesh.connect("ensemble", teachers="t", student="s", objective="margin_mse")
    summary = mesh.run(backend="inline").summary
    assert summary["agents"]["t"]["forwards"] and "ndcg" in summary["agents"]["s"]["metrics"]["test"]


def test_a_control_by_two_towers_that_learned_has_two_towers(tmp_path, lists):
    mesh = mesh_of(lists, train={"steps": 4, "batch_size": 8})
    for name in "ab":
        mesh.agent(name, BI)
        mesh.flow("labels", name, objective="info_nce")
    mesh.agent("s", BI)
    mesh.connect("ensemble", teachers=["a", "b"], student="s", objective="kl")
    found = mesh.run(backend="inline", out=tmp_path / "runs", controls=True).summary
    best = found["controls"]["s"]["best_teacher"]
    assert best["teacher"] == found["best_teacher"] and best["test"]["ndcg"] > 0


def test_an_encoder_whose_checkpoint_has_another_head_embeds_frozen_too(tmp_path, lists):
    """A masked language model has no pooler: none is needed, so that nothing of it is drawn."""
    base = AutoModel.from_config(save(tmp_path / "base", config=architecture("bert", **STILL)).config)
    masked = AutoModelForMaskedLM.from_config(base.config)
    masked.save_pretrained(tmp_path / "base")
    mesh = mesh_of(lists, train={"steps": 2, "batch_size": 8})
    mesh.agent("t", {"hf": {"path": str(tmp_path / "base"), "max_length": 48, "bi_encoder": {}}}, update="frozen")
    mesh.agent("s", BI)
    mesh.connect("ensemble", teachers="t", student="s", objective="kl")
    with quiet():
        found = mesh.run(backend="inline", out=tmp_path / "runs")
    own = found["t"].module.net.state_dict()
    assert torch.equal(own["encoder.layer.1.output.dense.weight"], masked.bert.encoder.layer[1].output.dense.weight)
    told = kdmesh.load(found.folder / "agents" / "t")(ASKED).detach()
    ids = [bpe()(text, return_tensors="pt") for text in (ASKED[0].text, *ASKED[0].candidates)]
    with torch.no_grad():
        query, *others = [masked.eval().bert(**one).last_hidden_state[0].mean(0) for one in ids]
    torch.testing.assert_close(told[0], torch.stack([query @ other for other in others]), atol=1e-5, rtol=1e-5)


def test_a_query_is_known_again_among_other_candidates(exported, tmp_path):
    """Weights that learned a query are refused where it is tested, whatever candidates it has there."""
    given = [{**row, "candidates": [f"{one} {n}" for one in row["candidates"]]} for n, row in enumerate(rows())]
    mesh = mesh_of(put(tmp_path, given[::-1]), train={"steps": 2, "batch_size": 8})
    mesh.agent("t", {"hf": {"path": str(exported.folder / "agents" / "cross"), "max_length": 48}}, update="frozen")
    mesh.agent("s", BI)
    mesh.connect("ensemble", teachers="t", student="s", objective="kl")
    with pytest.raises(kdmesh.MeshError, match=r"test samples \(their queries\) were used to train these weights"):
        mesh.run(backend="inline")


# -- lists --


def test_scores_depend_on_no_other_list(lists):
    """In whatever company: publications, live answers and measuring give one list the same bits."""
    mesh = mesh_of(lists)
    mesh.agent("a", CROSS)
    mesh.agent("s", BI)
    plan = mesh.plan()
    found = examine(plan)
    for name in "as":
        model = build(plan, name, found.reading, registry(), {}).eval()
        every = found.reading.encoded(name, torch.arange(20))
        with torch.no_grad():
            whole = torch.empty(20, model.classes)
            for at, tokens in every.parts(8):
                whole[at] = model(tokens)[: len(at)]
            for rows_ in ([3], [11, 3], [5, 17, 3]):
                for at, tokens in every.select(torch.tensor(rows_)).parts(8):
                    assert torch.equal(model(tokens)[: len(at)], whole[torch.tensor(rows_)[at]])
            plain = model(every.batch(torch.arange(20)))
        torch.testing.assert_close(plain, whole, atol=1e-5, rtol=1e-5)


def test_check_says_how_long_lists_are(lists):
    mesh = mesh_of(lists)
    mesh.agent("s", BI)
    lines = check(mesh.plan())
    assert lines[0].startswith("data: 44 texts, lists of up to 4 candidates; licence")
    assert any(line.startswith("agent s reads 44 texts") for line in lines)


def test_texts_of_a_list_stand_one_after_the_other():
    sample = Sample("the cat", candidates=("a dog ran", "the mat"))
    for embeds, texts in (
        (True, ["the cat", "a dog ran", "the mat"]),
        (False, [("the cat", "a dog ran"), ("the cat", "the mat")]),
    ):
        encoder = Encoder(bpe(), "ranking", max_length=32, embeds=embeds)
        encoded, report = encoder.encode(Texts([sample, Sample("a", candidates=("b",))]))
        x = encoded.whole()
        told = [bpe()(*((text,) if embeds else text))["input_ids"] for text in texts]
        assert [row[mask].tolist() for row, mask in zip(x.ids, x.mask, strict=True)][: len(told)] == told
        assert x.texts.tolist() == ([3, 2] if embeds else [2, 1]) and x.lengths[0] == sum(map(len, told))
        assert len(x) == 2 and report.longest == max(map(len, told)) and not report.truncated


def test_a_list_is_cut_dropped_or_refused_as_a_whole():
    long = Sample("the cat", candidates=("a", "sat on the mat and who is it that sat on a dog"), at="x.jsonl, line 3")
    for embeds in (True, False):
        short = partial(Encoder, bpe(), "ranking", max_length=14, embeds=embeds)
        encoded, report = short().encode(Texts([long, Sample("a", candidates=("b",))]))
        assert report.truncated == [0] and int(encoded.whole().mask.sum(1).max()) == 14
        assert short(over="drop").encode(Texts([long]))[1].dropped == [0]
        with pytest.raises(kdmesh.MeshError, match=r"line 3, candidate 1, field .* tokens where max_length is 14"):
            short(over="refuse").encode(Texts([long]))


def test_negatives_of_the_batch_teach_where_most_queries_have_none(tmp_path):
    """Pairs and triplets; a flow of labels and one of a wider bi-encoder, on the layer that has embeddings."""
    given = []
    for number, row in enumerate(rows(40)):
        right = row["candidates"][row["relevance"].index(1.0)]
        wrong = row["candidates"][row["relevance"].index(0.0)]
        given.append({"query": row["query"], "positive": right, "negative": [] if number % 4 else wrong})
    mesh = mesh_of(put(tmp_path, given), {name: name for name in given[0]})
    mesh.agent("t", bert(24, bi_encoder={"pooling": "cls"}))
    mesh.agent("s", BI)
    mesh.flow("labels", ["t", "s"], objective="in_batch", tap="embedding")
    mesh.flow("t", "s", objective={"in_batch": {"temperature": 2}}, tap="embedding")
    summary = mesh.run(backend="inline", strict_signals=True).summary
    assert list(summary["agents"]["s"]["metrics"]["test"]) == ["ndcg", "mrr", "recall_at_k"]


def test_layers_of_two_bi_encoders_are_compared_token_by_token(lists):
    mesh = mesh_of(lists, train={"steps": 2, "batch_size": 8})
    wide = bert(16, 2, 280, attention="eager", bi_encoder={})
    mesh.agent("t", wide)
    mesh.agent("s", bert(8, 1, 280, attention="eager", bi_encoder={}))
    mesh.flow("labels", ["t", "s"], objective="info_nce")
    mesh.flow("t", "s", objective="hint", tap={"of": "hidden.2", "to": "hidden.1"})
    mesh.flow("t", "s", objective="attention_kl", tap={"of": "attention.1", "to": "attention.0"})
    assert mesh.run(backend="inline").summary["agents"]["s"]["metrics"]["test"]


# -- what is refused --


def refused(match, where, path, models, **fields):
    mesh = mesh_of(path, **fields)
    for name, model in models.items():
        mesh.agent(name, model)
    with pytest.raises(kdmesh.MeshError, match=match) as error:
        mesh.run(backend="inline")
    assert error.value.where == where and error.value.instead
    return error.value


@pytest.mark.parametrize(
    ("models", "where", "match"),
    [
        ({"a": gpt(8, bi_encoder={"pooling": "cls"})}, "agents.a.model.hf.bi_encoder.pooling", "gpt2 has seen nothing"),
        ({"a": {"cross_encoder": {}}}, "agents.a.model", "this model reads numbers"),
        ({"a": bert(8, label_map={"x": "y"})}, "agents.a.model.hf.label_map", "at `path`, which is not given"),
    ],
)
def test_models_that_score_no_candidates_are_refused(models, where, match, lists):
    refused(match, where, lists, models)


def test_embeddings_are_for_ranking_alone(texts):
    data = {"dataset": {"text": {"path": str(texts), "label": "label"}}}
    refused("task classification compares no embeddings", "agents.a.model.hf.bi_encoder", "", {"a": BI}, data=data,
            task="classification")  # fmt: skip


def test_another_task_reads_no_candidates(lists, texts):
    error = refused("learns classes, and the labels of these data are values", "task", lists, {"a": CROSS},
                    task="classification")  # fmt: skip
    assert "ranking" in error.instead
    data = {"dataset": {"text": {"path": str(texts)}}}
    refused("these texts have no candidates", "data.dataset", "", {"a": CROSS}, data=data)


def test_a_prefix_and_a_layer_that_are_not_there_are_refused(lists):
    with pytest.raises(kdmesh.MeshError, match="no prefix is tuned for embeddings"):
        mesh_of(lists, agents={"a": {"model": bert(8, prefix={}, bi_encoder={})}}).plan()
    mesh = mesh_of(lists)
    mesh.agent("t", bert(8))
    mesh.agent("s", bert(8))
    mesh.flow("labels", ["t", "s"], objective="info_nce")
    mesh.flow("t", "s", objective="hint", tap="pooled.1")
    with pytest.raises(kdmesh.MeshError, match=r"no layer 'pooled.1' to tap in a cross-encoder"):
        mesh.run(backend="inline")


def test_a_checkpoint_of_several_classes_is_no_cross_encoder(tmp_path, lists):
    save(tmp_path / "three", config=architecture("bert"))
    model = {"hf": {"path": str(tmp_path / "three"), "max_length": 48}}
    refused(r"shape \(3,\), where this model has \(1,\)", "agents.a.model.hf.path", lists, {"a": model})
