"""Ranking: metrics against brute force, losses against loops in float64, what is refused, and a run as a plain loop."""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import pairwise, permutations

import pytest
import torch
from sklearn.metrics import ndcg_score
from torch import nn
from torch.nn import functional as F

import kdmesh
from kdmesh.builtin.datasets.digit_lists import digit_lists
from kdmesh.builtin.datasets.digits import digits
from kdmesh.builtin.datasets.lists import lists as lists_of
from kdmesh.builtin.models.bi_encoder import BiEncoder
from kdmesh.builtin.models.cross_encoder import CrossEncoder
from kdmesh.builtin.objectives.in_batch import InBatch
from kdmesh.builtin.objectives.info_nce import InfoNCE
from kdmesh.builtin.objectives.margin_mse import MarginMSE
from kdmesh.engine.check import examine
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.metrics import UNDEFINED, measure
from kdmesh.hosts.modules import build
from kdmesh.metrics import MRR, NDCG, RecallAtK
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.streams.order import epoch_order
from kdmesh.streams.table import Table
from kdmesh.tasks import probabilistic

BI, CROSS = {"bi_encoder": {"hidden": [8], "embedding": 4}}, {"cross_encoder": {"hidden": [8]}}
ENSEMBLE = {"teachers": ["a", "b"], "student": "s", "objective": "margin_mse"}
EPOCHS, SIZE = 3, 32


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lists(rows=200, candidates=5, features=6, most=0):
    """Random lists of vectors, of which the last candidates of every third are missing."""
    x = torch.randn(rows, 1 + candidates, features, generator=seeded())
    y = (x[:, 1:, 0] * x[:, :1, 0] > 0.3).float() * torch.randint(1, 3, (rows, candidates), generator=seeded(1))
    for row in range(0, rows, 3):
        keep = 1 + row % (candidates - 1)
        x[row, 1 + keep :], y[row, keep:] = 0, -1
    return Table(x, y, classes=0)


def rated(labels, order, k):
    """MRR, nDCG@k (linear gains) and recall@k of one list in one order, as the books write them."""
    gains = [labels[place] for place in order]
    first = next(rank for rank, gain in enumerate(gains, 1) if gain > 0)
    best = sum(g / math.log2(r + 1) for r, g in enumerate(sorted(gains, reverse=True)[:k], 1))
    dcg = sum(g / math.log2(r + 1) for r, g in enumerate(gains[:k], 1))
    return 1 / first, dcg / best, sum(g > 0 for g in gains[:k]) / sum(g > 0 for g in gains)


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_metrics_are_means_over_all_orders_of_ties(k):
    """Lists of up to five with many equal scores, rated in every order that the scores allow."""
    scores = torch.randint(0, 3, (60, 5), generator=seeded()).double()
    labels = torch.randint(0, 3, (60, 5), generator=seeded(1)).double()
    labels[::4, 3:], scores[::4, 3:] = -1, -math.inf
    labels[2] = 0
    scores[1, 0] = -math.inf  # a model rules out a candidate that there is: it is the last
    expected = []
    for own, truth in zip(scores.tolist(), labels.tolist(), strict=True):
        there = [place for place in range(5) if truth[place] >= 0]
        if any(truth[place] > 0 for place in there):
            orders = [o for o in permutations(there) if all(own[a] >= own[b] for a, b in pairwise(o))]
            expected.append(torch.tensor([rated(truth, order, k) for order in orders], dtype=torch.float64).mean(0))
    found = measure({"mrr": MRR(), "ndcg": NDCG(k), "recall": RecallAtK(k)}, scores, labels)
    assert list(found.values()) == pytest.approx(torch.stack(expected).mean(0).tolist(), abs=1e-12)
    assert len(expected) == 59, "a query without an answer is left out"


@pytest.mark.parametrize("k", [2, 4, 10])
def test_ndcg_is_that_of_scikit_learn(k):
    scores = torch.randint(0, 4, (50, 7), generator=seeded()).double()
    labels = torch.randint(0, 4, (50, 7), generator=seeded(1)).double()
    labels[:, 0] += 1
    expected = ndcg_score(labels.numpy(), scores.numpy(), k=k)
    assert measure({"ndcg": NDCG(k)}, scores, labels)["ndcg"] == pytest.approx(expected, abs=1e-12)


def test_where_nothing_is_relevant_no_figure_is_defined():
    found = measure({"mrr": MRR(), "ndcg": NDCG()}, torch.randn(3, 4), torch.zeros(3, 4))
    assert found == {UNDEFINED: dict.fromkeys(("mrr", "ndcg"), "no query has a relevant candidate")}


def sides(rows=6, candidates=4):
    """Scores of a student and a target in float64, and labels; some candidates are missing in all three."""
    made = seeded(3)
    own, other = (torch.randn(rows, candidates, generator=made, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, 3, (rows, candidates), generator=made).double()
    labels[0] = torch.tensor([2.0, 1, 0, -1])
    labels[1] = 0
    gone = labels < 0
    return own.masked_fill(gone, -math.inf), other.masked_fill(gone, -math.inf), labels


def test_info_nce_is_a_loop_over_candidates():
    own, _, labels = sides()
    total = 0.0
    for scores, gains in zip(own.tolist(), labels.tolist(), strict=True):
        there = [j for j in range(4) if gains[j] >= 0]
        mass = sum(math.exp(scores[j] / 0.7) for j in there)
        whole = sum(gains[j] for j in there)
        total -= sum(gains[j] / whole * math.log(math.exp(scores[j] / 0.7) / mass) for j in there) if whole else 0
    assert InfoNCE(0.7)(own, labels).item() == pytest.approx(total / 6, abs=1e-12)
    one = F.one_hot(torch.tensor([1, 3, 0, 2, 2, 1]), 4).double()
    plain = torch.randn(6, 4, generator=seeded(), dtype=torch.float64)
    assert InfoNCE()(plain, one).item() == pytest.approx(F.cross_entropy(plain, one.argmax(1)).item(), abs=1e-12)


def test_margin_mse_is_a_loop_over_pairs():
    own, other, labels = sides()
    total = 0.0
    for s, t, g in zip(own.tolist(), other.tolist(), labels.tolist(), strict=True):
        pairs = [(i, j) for i in range(4) for j in range(4) if g[i] > g[j] >= 0]
        total += sum(((s[i] - s[j]) - (t[i] - t[j])) ** 2 for i, j in pairs) / max(1, len(pairs))
    assert MarginMSE()(own, other, labels=labels).item() == pytest.approx(total / 6, abs=1e-12)
    assert MarginMSE()(own, own + 5, labels=labels).item() == pytest.approx(0, abs=1e-12)


def test_in_batch_is_a_loop_over_the_batch():
    made = seeded(4)
    own, other = (torch.randn(3, 1 + 2, size, generator=made, dtype=torch.float64) for size in (4, 6))
    own[1, 2] = other[1, 2] = 0  # query 1 has one candidate
    labels = torch.tensor([[1.0, 0], [1, -1], [2, 1]], dtype=torch.float64)
    places = [(b, j) for b in range(3) for j in range(2) if (b, j) != (1, 1)]
    nce = divergence = 0.0
    for query in range(3):
        s, t = ([float(e[query, 0] @ e[b, 1 + j]) / 0.5 for b, j in places] for e in (own, other))
        q, p = ([math.exp(v - max(z)) / sum(math.exp(w - max(z)) for w in z) for v in z] for z in (s, t))
        gains = [max(0.0, float(labels[b, j])) if b == query else 0.0 for b, j in places]
        nce -= sum(g / sum(gains) * math.log(v) for g, v in zip(gains, q, strict=True))
        divergence += sum(u * math.log(u / v) for u, v in zip(p, q, strict=True))
    assert InBatch(0.5)(own, labels, form="labels").item() == pytest.approx(nce / 3, abs=1e-12)
    assert InBatch(0.5)(own, other, form="hidden").item() == pytest.approx(0.25 * divergence / 3, abs=1e-12)


def test_gradients_are_right_where_candidates_are_missing():
    _, other, labels = sides()
    gone = labels < 0
    free = torch.randn(6, 4, generator=seeded(), dtype=torch.float64, requires_grad=True)
    for loss in (
        lambda z: InfoNCE(0.7)(z.masked_fill(gone, -math.inf), labels),
        lambda z: MarginMSE()(z.masked_fill(gone, -math.inf), other, labels=labels),
    ):
        assert torch.autograd.gradcheck(loss, (free,))
    embedded = torch.randn(3, 3, 4, generator=seeded(), dtype=torch.float64, requires_grad=True)
    blank = torch.zeros(3, 3, 1, dtype=torch.bool)
    blank[1, 2] = True
    answers = torch.tensor([[1.0, 0], [1, -1], [0, 1]], dtype=torch.float64)
    target = torch.randn(3, 3, 5, generator=seeded(1), dtype=torch.float64).masked_fill(blank, 0)
    for given, form in ((answers, "labels"), (target, "hidden")):
        assert torch.autograd.gradcheck(
            lambda e, g=given, f=form: InBatch()(e.masked_fill(blank, 0), g, form=f), (embedded,)
        )


RULES = [offer.name for offer in registry().offers("consensus") if "relevance" in offer.answers]


@pytest.mark.parametrize("rule", [name for name in RULES if name != "route"])
@pytest.mark.parametrize("space", ["probs", "logits"])
def test_rules_combine_the_candidates_that_there_are(rule, space):
    """Of lists with missing candidates a rule gives what it gives of the others alone, and -inf or no mass there."""
    offer = registry().find("consensus", rule)
    if space not in offer.spaces:
        return
    made = offer.make(
        {"weighted": {"weights": [1, 2, 3]}, "threshold_vote": {"votes": 1}, "staleness": {"exponent": 1}}.get(rule, {})
    )
    made.space = space
    logits = torch.randn(3, 7, 5, generator=seeded(), dtype=torch.float64)
    logits[:, :, 4] = -math.inf
    there = logits[..., :4]
    given = [made(value.softmax(-1) if space == "probs" else value, logits=value) for value in (logits, there)]
    whole, part = (value[0] if offer.abstains else value for value in given)
    torch.testing.assert_close(whole[:, :4], part)
    assert (whole[:, 4] == (0 if space == "probs" else -math.inf)).all()


@pytest.mark.parametrize("kind", [BiEncoder, CrossEncoder])
def test_models_score_each_candidate_alone_and_none_that_is_not_there(kind):
    x = lists().x[:4]
    torch.manual_seed(0)
    model = kind((6, 6), 5, hidden=[8])
    scores = model(x)
    assert torch.equal(scores.isneginf(), (x[:, 1:] == 0).all(-1))
    order = torch.tensor([0, 3, 1, 2, 5, 4])  # of query and candidates
    torch.testing.assert_close(model(x[:, order]), scores[:, order[1:] - 1])


def test_digit_lists_are_what_they_say():
    table, source = digit_lists(candidates=6, relevant=2), digits()
    images = {tuple(image): number for number, image in enumerate(source.x.flatten(1).tolist())}
    part = {row: name for name, rows in table.official.items() for row in rows.tolist()}
    for row in range(0, len(table), 29):
        own, *others = [images[tuple(image)] for image in table.x[row].tolist()]
        assert source.y[own] == source.y[row] and own not in others and len(set(others)) == 6
        assert [float(source.y[one] == source.y[row]) for one in others] == table.y[row].tolist()
        assert {part[one] for one in others} == {part[row]}


def planned(**fields):
    made = {
        "task": "ranking", "data": "digit_lists", "agents": {"a": {"model": CROSS}, "b": {"model": CROSS},
        "s": {"model": BI}}, **fields,
    }  # fmt: skip
    return make_plan(MeshSpec.model_validate(made), registry())


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"flows": [{"from": "labels", "to": "a", "objective": "ce"}]}, "flows.0.objective", "reads labels that are"),
        ({"connect": [{"ensemble": {**ENSEMBLE, "consensus": "confidence"}}]}, "connect.0", "combines answers"),
        ({"metrics": ["accuracy"]}, "metrics.0", "the labels of task ranking are relevance"),
        ({"task": "classification", "data": "digits", "agents": {n: {"model": {"mlp": {}}} for n in "abs"},
          "connect": [{"ensemble": ENSEMBLE}]}, "connect.0.ensemble", "reads labels that are relevance"),
        ({"train": {"early_stopping": {"metric": "loss"}}}, "train.early_stopping.metric", "is not measured"),
        ({"flows": [{"from": "a", "to": "s", "objective": "margin_mse", "stream": "transfer"}],
          "data": {"dataset": "digit_lists", "transfer": 0.2}}, "flows.0", "labels"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_of_lists_is_refused_when_planned(fields, where, what):
    with pytest.raises(kdmesh.MeshError, match=what) as error:
        planned(**fields)
    assert error.value.where.startswith(where)


def spoiled(change):
    table = lists()
    change(table)
    return table


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.x[1, 2].zero_(), "candidate 1 of sample 1 is all zeros"),
        (lambda t: t.y[1, 2].fill_(-1), "candidate 2 of sample 1 has a label below 0"),
        (lambda t: (t.x[1, 1:].zero_(), t.y[1].fill_(-1)), "sample 1 has no candidate"),
        (lambda t: t.y.clamp_(max=0), "no candidate of any sample is relevant"),
        (lambda t: setattr(t, "x", t.x[:, 1:]), "are no lists"),
        (lambda t: setattr(t, "y", None), "have no relevance labels"),
    ],
)
def test_lists_that_do_not_hold_together_are_refused(change, what):
    plan = planned(agents={"a": {"model": CROSS}})
    with pytest.raises(kdmesh.MeshError, match=what):
        examine(plan, table=spoiled(change))


def test_what_tables_say_of_probabilities_is_not_said_of_ranks():
    assert probabilistic("classification") and not probabilistic("ranking")


def test_a_model_of_lists_reads_nothing_else():
    with pytest.raises(kdmesh.MeshError, match="reads a query and its candidates") as error:
        examine(planned(task="classification", data="digits", agents={"a": {"model": BI}}))
    assert error.value.where == "agents.a.model.bi_encoder"


@pytest.mark.parametrize(("objective", "space"), [("margin_mse", "logits"), ("kl", "probs")])
def test_an_ensemble_is_a_plain_loop_bit_for_bit(objective, space):
    """Two cross-encoders learn lists of unlike lengths by InfoNCE; their mean teaches a bi-encoder with labels."""
    table = lists()
    make = partial(torch.optim.SGD, lr=0.02, momentum=0.9, fused=True)
    train = {"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.02, "momentum": 0.9}}}
    mesh = kdmesh.Mesh(data=table, task="ranking", seed=7, train=train)
    for name, model in (("a", CROSS), ("b", CROSS), ("s", BI)):
        mesh.agent(name, model)
    mesh.connect("ensemble", teachers=["a", "b"], student="s", objective=objective, labels=0.5)
    plan = mesh.plan()
    assert {node.space for node in plan.consensus.values()} == {space}
    found = examine(plan, table=table)
    rows = found.streams["train"].rows
    x, y = table.x[rows], table.y[rows]
    modules = {name: build(plan, name, found.reading, registry(), {}) for name in "abs"}
    batches = [at for epoch in range(EPOCHS) for at in epoch_order(7, "train", epoch, len(rows)).split(SIZE)]

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

    for name in "ab":
        optimizer = make(modules[name].parameters())
        for at in batches:
            optimizer.zero_grad()
            nce(modules[name](x[at]), y[at]).backward()
            optimizer.step()

    @torch.no_grad()
    def answers(teacher):
        teacher.eval()
        padded = torch.cat([x, x[-1:].expand(-len(x) % SIZE, *x.shape[1:])])
        scores = torch.cat([teacher(part) for part in padded.split(SIZE)])[: len(x)]
        return scores.softmax(1) if space == "probs" else scores

    target = (answers(modules["a"]) + answers(modules["b"])) / 2
    optimizer = make(modules["s"].parameters())
    taught = margins if objective == "margin_mse" else divergence
    for at in batches:
        optimizer.zero_grad()
        own = modules["s"](x[at])
        parts = {"labels": 0.5 * nce(own, y[at]), "teachers": 0.5 * taught(own, target[at], y[at])}
        sum(parts["labels" if edge.source == "labels" else "teachers"] for edge in plan.edges if edge.target == "s"
            ).backward()  # fmt: skip
        optimizer.step()
    result = mesh.run(backend="inline", strict_signals=True)
    worst = max(
        (own - other).abs().max().item()
        for name in "abs"
        for own, other in zip(result[name].module.parameters(), modules[name].parameters(), strict=True)
    )
    assert worst == 0.0


def test_negatives_of_the_batch_teach_from_labels_and_from_embeddings():
    """A flow of labels, and one of a teacher with larger embeddings, on the layer that has them."""
    mesh = kdmesh.Mesh(data=lists(), task="ranking", train={"epochs": 4, "optimizer": {"adam": {"lr": 0.01}}})
    mesh.agent("t", {"bi_encoder": {"hidden": [16], "embedding": 12}})
    mesh.agent("s", BI)
    mesh.flow("labels", ["t", "s"], objective="in_batch", tap="embedding")
    mesh.flow("t", "s", objective={"in_batch": {"temperature": 2}}, tap="embedding")
    metrics = mesh.run(backend="inline").summary["agents"]["s"]["metrics"]["test"]
    assert list(metrics) == ["ndcg", "mrr", "recall_at_k"]


class Flat(nn.Module):
    """Every candidate is worth as much."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.weight * x.new_ones(x.shape[0], x.shape[1] - 1)


def test_a_model_that_prefers_nothing_is_at_chance():
    mesh = kdmesh.Mesh(task="ranking", data=lists(), train={"epochs": 1})
    mesh.agent("flat", Flat())
    (note,) = (n for n in mesh.run(backend="inline").summary["notes"] if n.startswith("at chance"))
    assert "no better on test than a random order" in note


def written(folder, rows, name="some.jsonl"):
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(folder / name)


def test_lists_of_files_are_padded_vectors_with_labels(tmp_path):
    rows = [
        {"query": [1, 2], "positives": [[3, 4]], "negatives": [[5, 6], [7, 8]], "domain": "x"},
        {"query": [0, 1], "positives": [], "negatives": [[2, 2]], "domain": "y"},
    ]
    rated = [{"query": [9, 9], "candidates": [[1, 0], [0, 2]], "labels": [0, 2.5], "domain": "x"}]
    table = lists_of(written(tmp_path, rows), test_path=written(tmp_path, rated, "test.jsonl"))
    assert table.x[:, 0].tolist() == [[1, 2], [0, 1], [9, 9]]
    first = dict(zip(map(tuple, table.x[0, 1:].tolist()), table.y[0].tolist(), strict=True))
    assert first == {(3, 4): 1, (5, 6): 0, (7, 8): 0}, "in an order of its own"
    assert table.x[1:, 1:].tolist() == [[[2, 2], [0, 0], [0, 0]], [[1, 0], [0, 2], [0, 0]]]
    assert table.y[1:].tolist() == [[0, -1, -1], [0, 2.5, -1]]
    assert {name: part.tolist() for name, part in table.official.items()} == {"test": [2]}
    assert table.columns == {"domain": ["x", "y", "x"]}


def test_texts_are_counts_of_their_words_whatever_case_and_marks(tmp_path):
    candidates = {"candidates": ["what IS it", "is it what", "it"], "labels": [1, 0, 0]}
    rows = [{"query": "What is it?", **candidates}] * 2
    one, two = lists_of(written(tmp_path, rows)).x[0], lists_of(written(tmp_path, rows), ngrams=2).x[0]
    assert torch.equal(one[0], one[1]) and torch.equal(one[0], one[2]) and not torch.equal(one[0], one[3])
    assert torch.equal(two[0], two[1]) and not torch.equal(two[0], two[2])
    torch.testing.assert_close(one.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"query": "a", "positives": ["b"]}, "fields query, positives"),
        ({"query": "a", "positives": "b", "negatives": []}, "'positives', line 1: 'b' is not a list"),
        ({"query": "a", "positives": [], "negatives": []}, "'positives', line 1: a query without a candidate"),
        ({"query": "a", "candidates": ["b", "c"], "labels": [1]}, "'labels', line 1: 1 labels for 2 candidates"),
        ({"query": "a", "candidates": ["b"], "labels": [-1]}, "'labels', line 1: -1 is not a relevance"),
        ({"query": "a", "candidates": ["?!"], "labels": [1]}, "'candidates', line 1: '\\?!' has no word"),
        ({"query": "a", "candidates": [[1]], "labels": [1]}, "line 1: \\[1\\] is not a text"),
        ({"query": [1, 2], "candidates": [[1]], "labels": [1]}, "line 1: \\[1\\] are not 2 numbers"),
        ({"query": [1, 2], "candidates": [[0, 0]], "labels": [1]}, "line 1: \\[0, 0\\] is not finite, or all zeros"),
    ],
)
def test_a_line_that_is_no_list_is_named(tmp_path, row, what):
    with pytest.raises(kdmesh.MeshError, match=what) as error:
        lists_of(written(tmp_path, [row]))
    assert error.value.where == "data.dataset.lists.path"


def test_lists_of_private_shards_are_the_same_together_and_apart():
    """Two agents on lists of their own: what a host does not hold is blank, and nothing depends on it."""
    streams = {"own": {"of": "train", "shards": {"by": "iid", "of": ["a", "b"]}, "private": True}}
    found = []
    for placement in ("together", "spread"):
        mesh = kdmesh.Mesh(
            task="ranking", data=lists(), streams=streams, placement=placement, train={"epochs": 2},
            agents={"a": {"model": BI}, "b": {"model": CROSS}},
            flows=[{"from": "labels", "to": name, "stream": "own", "objective": "info_nce"} for name in "ab"],
        )  # fmt: skip
        agents = mesh.run(backend="inline").summary["agents"]
        found.append({name: one["weights_sha256"] for name, one in agents.items()})
    assert found[0] == found[1]
