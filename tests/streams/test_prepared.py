"""`prepare`: equal to scikit-learn's own transformers, fitted on train alone, and whole again from its files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import preprocessing
from sklearn.feature_extraction import FeatureHasher
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from kdmesh.errors import MeshError
from kdmesh.spec.prepare import PrepareSpec
from kdmesh.streams.cells import Cells, Values, word
from kdmesh.streams.prepared import NUMBERS, SETTINGS, Prepared
from kdmesh.tables.fitting import fit
from kdmesh.tables.rows import number_of

SCALERS = {
    "standard": preprocessing.StandardScaler,
    "minmax": preprocessing.MinMaxScaler,
    "maxabs": preprocessing.MaxAbsScaler,
    "robust": preprocessing.RobustScaler,
}
WORDS = st.sampled_from(["a", "b", "cc", "Ünlike"])
NUMBER = st.floats(-1e6, 1e6, allow_subnormal=False)
ROWS = st.integers(3, 12)


def cells(**columns: list) -> Cells:
    return Cells(columns, number_of, lambda row, name: f"here.csv, column {name!r}, line {row + 2}", "data.prepare")


def made(source: Cells, *groups: dict, train: int | None = None) -> Prepared:
    rows = range(len(source) if train is None else train)
    return fit(source.take(rows), [PrepareSpec.model_validate(one) for one in groups], "data.prepare")


def columns(count: int, cell: st.SearchStrategy) -> st.SearchStrategy:
    """Columns of as many cells each, the first of which are no gaps."""
    return ROWS.flatmap(lambda rows: st.lists(st.lists(cell, min_size=rows, max_size=rows), min_size=1, max_size=count))


@settings(deadline=None, max_examples=40)
@given(
    columns(3, NUMBER | st.just("")),
    st.sampled_from([None, *SCALERS]),
    st.sampled_from(["mean", "median", "most_frequent"]),
)
def test_numbers_are_those_of_scikit_learn(drawn: list, scale: str | None, impute: str) -> None:
    for column in drawn:
        column[0] = 1.5
    source = cells(**{f"c{number}": column for number, column in enumerate(drawn)})
    rows = zip(*drawn, strict=True)  # in memory row after row: a mean's last bit depends on the order of its sum
    x = np.array([[np.nan if cell == "" else cell for cell in row] for row in rows])
    steps = [SimpleImputer(strategy=impute), *([SCALERS[scale]()] if scale else [])]
    group = {"columns": "numbers", "impute": impute, **({"scale": scale} if scale else {})}
    found = made(source, group).of_cells(source)
    assert torch.equal(found, torch.from_numpy(make_pipeline(*steps).fit_transform(x)).float())


@settings(deadline=None, max_examples=40)
@given(columns(3, WORDS | st.just("")), st.sampled_from(["one_hot", "ordinal", "hash"]))
def test_words_are_those_of_scikit_learn(drawn: list, encode: str) -> None:
    for column in drawn:
        column[0] = "b"
    source = cells(**{f"c{number}": column for number, column in enumerate(drawn)})
    x = np.array([[None if cell == "" else cell for cell in column] for column in drawn], dtype=object).T
    x = SimpleImputer(missing_values=None, strategy="most_frequent").fit_transform(x)
    own = {
        "one_hot": lambda: preprocessing.OneHotEncoder(sparse_output=False).fit_transform(x),
        "ordinal": lambda: preprocessing.OrdinalEncoder().fit_transform(x),
        "hash": lambda: np.concatenate(
            [FeatureHasher(8, input_type="string").transform([[one] for one in column]).toarray() for column in x.T], 1
        ),
    }
    more = {"outputs": 8} if encode == "hash" else {}
    found = made(source, {"columns": "categories", "encode": encode, "impute": "most_frequent", **more})
    assert torch.equal(found.of_cells(source), torch.from_numpy(own[encode]()).float())
    assert len(found.outputs) == found.of_cells(source).shape[1]


GROUPS = (
    {"columns": "numbers", "missing": ["?"], "impute": "median", "indicator": True, "scale": "standard"},
    {"columns": "categories", "encode": "one_hot", "indicator": True, "unseen": "ignore"},
    {"columns": ["z"], "encode": "hash", "outputs": 4},
    {"columns": ["g"], "encode": "ordinal", "order": ["low", "high"], "scale": "minmax"},
)


def mixed(rows: int) -> st.SearchStrategy:
    def column(cell: st.SearchStrategy) -> st.SearchStrategy:
        return st.lists(cell, min_size=rows, max_size=rows)

    number = NUMBER | st.sampled_from(["", "?"])
    parts = {"a": number, "b": number, "w": WORDS | st.just(""), "z": WORDS, "g": st.sampled_from(["low", "high"])}
    return st.fixed_dictionaries({name: column(cell) for name, cell in parts.items()})


@settings(deadline=None, max_examples=40)
@given(mixed(8), mixed(5), mixed(5))
def test_fitting_reads_train_alone(train: dict, held: dict, other: dict) -> None:
    """Other rows have any values: what is learned is the same to the byte, and so is what train becomes."""
    train |= {"a": [1.0, *train["a"][1:]], "b": [2.0, *train["b"][1:]], "w": ["a", *train["w"][1:]]}
    one, two = (cells(**{name: [*train[name], *rest[name]] for name in train}) for rest in (held, other))
    first, second = made(one, *GROUPS, train=8), made(two, *GROUPS, train=8)
    assert first.files() == second.files() and first.outputs == second.outputs
    assert torch.equal(first.of_cells(one)[:8], second.of_cells(two)[:8])


@settings(deadline=None, max_examples=20)
@given(mixed(8))
def test_read_again_it_gives_the_same_bits_row_by_row(tmp_path_factory: pytest.TempPathFactory, drawn: dict) -> None:
    drawn |= {"a": [1.0, *drawn["a"][1:]], "b": [2.0, *drawn["b"][1:]], "w": ["a", *drawn["w"][1:]]}
    source, root = cells(**drawn), tmp_path_factory.mktemp("read")
    first = made(source, *GROUPS)
    for name, content in first.files().items():
        (root / name).write_bytes(content)
    again = Prepared.read(root)
    assert again is not None and again.outputs == first.outputs
    whole = first.of_cells(source)
    assert torch.equal(again.of_cells(source), whole) and whole.dtype == torch.float32
    assert torch.equal(torch.cat([again.of_cells(source.take([row])) for row in range(8)]), whole)


def test_pixels_are_scaled_by_channel() -> None:
    from kdmesh.streams.table import Table
    from kdmesh.tables.fitting import _made

    x = torch.rand(20, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(12)
    group = PrepareSpec.model_validate({"columns": "pixels", "scale": "standard"})
    found, how = _made(Table(x, None, 2), [group], rows, "data.prepare", None)
    flat = x[rows].movedim(1, -1).reshape(-1, 3).double().numpy()
    own = preprocessing.StandardScaler().fit(flat)
    every = own.transform(x.movedim(1, -1).reshape(-1, 3).double().numpy()).reshape(20, 4, 5, 3)
    assert torch.allclose(found, torch.from_numpy(every).movedim(-1, 1).float(), atol=1e-6, rtol=0)
    assert torch.equal(how.of_values(x[3:4]), found[3:4]) and how.outputs == []


def test_vectors_without_names() -> None:
    x = torch.tensor([[1.0, 7.0], [3.0, 8.0], [5.0, 7.0]])
    source = Values.of(x, [], "data.prepare")
    how = fit(source, [PrepareSpec.model_validate({"columns": ["feature 1"], "encode": "one_hot"})], "data.prepare")
    assert how.outputs == ["feature 1=7", "feature 1=8", "feature 0"]
    assert how.of_values(x).tolist() == [[1, 0, 1], [0, 1, 3], [1, 0, 5]]
    x = torch.tensor([[0.1], [2.0], [1000.0], [4.0]])
    asked = {"columns": "numbers", "missing": ["0.1", "1e3", "²", "--5", "?"], "impute": "mean"}
    how = fit(Values.of(x, [], "data.prepare"), [PrepareSpec.model_validate(asked)], "data.prepare")
    assert how.of_values(x).tolist() == [[3], [2], [3], [4]], "a gap by its number in float32, however it is written"


FAULTS = {
    "unseen": (
        {"columns": "categories", "encode": "one_hot"},
        {"w": ["a", "b", "a", "new"]},
        "'w', line 5: 'new'",
        "unseen: ignore",
    ),
    "nan": (
        {"columns": "numbers", "scale": "standard"},
        {"n": [1, float("nan"), 2, 3]},
        "'n', line 3: an empty",
        "impute: median",
    ),
    "infinite": (
        {"columns": "numbers", "impute": "mean"},
        {"n": [1, float("inf"), 2, 3]},
        "'n', line 3: inf is not",
        "missing: [",
    ),
    "large": (
        {"columns": "numbers", "impute": "mean"},
        {"n": [1, 2, 3, 1e39]},
        "'n', line 5: 1e+39 is not finite in float32",
        "smaller",
    ),
    "large scaled": (
        {"columns": "numbers", "scale": "standard"},
        {"n": [1e-30, 2e-30, 3e-30, 1e20]},
        "'n', line 5: 1e+20 becomes 1.22474e+50, which is not finite",
        "smaller",
    ),
    "word": (
        {"columns": "numbers", "impute": "mean"},
        {"n": [1, 2, "x", 3]},
        "'n', line 4: 'x' is not a number",
        'missing: ["x"]',
    ),
    "empty": (
        {"columns": ["n"], "impute": "mean"},
        {"n": ["", "", "", 4], "m": [1, 2, 3, 4]},
        "all 3 cells of train",
        "`features`",
    ),
    "gap": (
        {"columns": "categories", "encode": "ordinal"},
        {"w": ["a", "b", "", "a"]},
        "'w', line 4: an empty",
        "most_frequent",
    ),
    "column": ({"columns": ["k"], "encode": "hash"}, {"w": ["a", "b", "a", "a"]}, "no column 'k'", "w"),
    "empty words": (
        {"columns": "categories", "encode": "hash"},
        {"n": [1, 2, 3, 4], "w": ["", "", "", "a"]},
        "every cell of train is empty in w",
        "leave this",
    ),
    "nothing": (
        {"columns": "categories", "encode": "hash"},
        {"n": [1, 2, 3, 4]},
        "no column that is left",
        "leave this",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_cells_are_named_with_what_to_write(name: str) -> None:
    group, drawn, said, instead = FAULTS[name]
    source = cells(**drawn)
    with pytest.raises(MeshError) as caught:
        made(source, group, train=3).of_cells(source, learned=False)
    assert (
        said in caught.value.what
        and instead in caught.value.instead
        and caught.value.where.startswith("data.prepare.0")
    )


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ({"columns": "numbers"}, "does nothing"),
        ({"columns": "age", "scale": "standard"}, r"\[age\]"),
        ({"columns": [], "scale": "standard"}, "names no column"),
        ({"columns": ["a", "a"], "scale": "standard"}, "twice"),
        ({"columns": "numbers", "encode": "one_hot"}, "`numbers` are not encoded"),
        ({"columns": "categories", "impute": "most_frequent"}, "`encode`"),
        ({"columns": ["a"], "encode": "one_hot", "impute": "mean"}, "words have no mean"),
        ({"columns": ["a"], "encode": "one_hot", "scale": "standard"}, "`scale` is of numbers"),
        ({"columns": ["a"], "scale": "standard", "indicator": True}, "`impute`"),
        ({"columns": ["a"], "encode": "hash", "unseen": "ignore"}, "`unseen` is of"),
        ({"columns": ["a"], "encode": "one_hot", "order": ["x", "y"]}, "`order` is of"),
        ({"columns": ["a"], "encode": "one_hot", "outputs": 8}, "`outputs` is of"),
        ({"columns": "pixels", "impute": "mean"}, "pixels have no gaps"),
    ],
)
def test_settings_that_do_not_go_together(group: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PrepareSpec.model_validate(group)


@pytest.mark.parametrize("damage", ["cut", "numbers", "gaps", "none"])
def test_damaged_files_are_refused(tmp_path, damage: str) -> None:
    source = cells(n=[1.0, "", 3.0], w=["a", "b", "a"])
    groups = [
        {"columns": "numbers", "impute": "mean", "scale": "standard"},
        {"columns": "categories", "encode": "one_hot"},
    ]
    for name, content in made(source, *groups).files().items():
        (tmp_path / name).write_bytes(content)
    text = (tmp_path / SETTINGS).read_text(encoding="utf-8")
    match damage:
        case "cut":
            (tmp_path / SETTINGS).write_text(text[: len(text) // 2], encoding="utf-8")
        case "numbers":
            (tmp_path / NUMBERS).write_bytes(b"nothing")
        case "gaps":
            (tmp_path / SETTINGS).write_text(text.replace('"n"', '"n", "m"', 2), encoding="utf-8")
        case "none":
            (tmp_path / NUMBERS).unlink()
    with pytest.raises(MeshError, match="damaged"):
        Prepared.read(tmp_path)


def test_whole_numbers_are_the_same_word_in_every_file() -> None:
    assert word(3.0) == word(3) == word("3") == "3" and word(3.5) == "3.5"
