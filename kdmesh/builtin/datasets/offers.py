"""What the built-in data sets are called and how they are configured; imports none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from kdmesh.offers import Config, DatasetOffer
from kdmesh.tables.kinds import SAVED, delimiter_of, encoding_of, is_table


class IdxConfig(Config):
    """Files as MNIST and Fashion-MNIST have them."""

    folder: str = Field(description="folder with train- and t10k- images and labels, plain or .gz")
    classes: int | None = Field(None, ge=1, description="number of classes; by default the largest label + 1")
    lazy: bool | None = Field(
        None,
        description="images are read when a batch asks for them, not kept in memory, of plain files; by default where "
        "they would take more than an eighth of it",
    )


class ArraysConfig(Config):
    """Arrays x and y; perhaps x_validation, y_validation, x_test, y_test.

    Labels are classes [N], values [N, T] of floating point, or indicators [N, K], 0 and 1.
    """

    path: str = Field(description=".npz or .safetensors file, or folder with x.npy, y.npy ...")
    classes: int | None = Field(None, ge=1, description="number of classes; by default the largest label + 1")
    lazy: bool | None = Field(
        None,
        description="rows of x are read when a batch asks for them, not kept in memory: of .npy and .safetensors; by "
        "default where they would take more than an eighth of it",
    )


def _resize(value: int | list[int] | None) -> int | list[int] | None:
    """A size of images; ValueError for one that none has."""
    if isinstance(value, list) and not all(1 <= size <= 16384 for size in value):
        raise ValueError(f"`resize` is {value}: a height and a width from 1 to 16384")
    return value


Resize = Annotated[
    Annotated[int, Field(ge=1, le=16384)] | Annotated[list[int], Field(min_length=2, max_length=2)] | None,
    Field(description="height and width to which every image is scaled; one number: both"),
    AfterValidator(_resize),
]


class TorchvisionConfig(Config):
    """A data set of torchvision, read into memory."""

    name: str = Field(min_length=1, description="its class in torchvision.datasets: CIFAR10, SVHN, Flowers102 ...")
    folder: str = Field(description="the folder that has it, which torchvision calls `root`; nothing is downloaded")
    resize: Resize = None
    mode: Literal["grey", "rgb"] | None = Field(None, description="channels to which every image is brought")
    split: str | None = Field(None, description="one of its splits alone, as all the data")


HUB_ALONE = ("validation_path", "test_path", "transfer_path", "root")
"""What a data set of the hub has by itself."""


class ImagesConfig(Config):
    """Images in a folder for each class, in a .zip or .tar of such, listed in a table of paths, or of `datasets`."""

    path: str | None = Field(
        None,
        description="folder, .zip or .tar with a folder for each class, perhaps below train/, validation/, test/ and "
        "transfer/; a table of paths: .csv, .tsv, .jsonl, .parquet; or a folder that `save_to_disk` of `datasets` made",
    )
    hub: str | None = Field(None, description="id of a Hugging Face data set, instead of `path`")
    name: str | None = Field(None, description="hub: the data set's configuration")
    revision: str | None = Field(None, description="hub: branch, tag or commit")
    splits: dict[Literal["train", "validation", "test"], str] | None = Field(
        None,
        description="hub, folder of `datasets`: which of its splits are train, validation and test; by default those "
        "so named",
    )
    validation_path: str | None = Field(None, description="the same with the official validation split")
    test_path: str | None = Field(None, description="the same with the official test split")
    transfer_path: str | None = Field(None, description="images without labels, in any folders: the split `transfer`")
    root: str | None = Field(
        None, description="table: folder, .zip or .tar that its paths are in; by default the table's own folder"
    )
    image: str | None = Field(None, description="table: column with the path of each image; by default `path`")
    label: str | None = Field(
        None, description="table: column with the class: a whole number from 0, or a name; by default `label`"
    )
    values: list[str] | None = Field(
        None, min_length=1, description="table: columns with values to learn (task: regression), instead of `label`"
    )
    indicators: list[str] | None = Field(
        None, min_length=1, description="table: columns with labels that hold or not, 1 or 0 (task: multi_label)"
    )
    classes: int | None = Field(None, ge=1, description="number of classes; by default as many as path has")
    resize: Resize = None
    mode: Literal["grey", "rgb"] | None = Field(
        None, description="channels to which every image is brought; by default as it is: grey or RGB, all alike"
    )
    bad: Literal["refuse", "drop"] = Field(
        "refuse", description="an image that cannot be read, or has another size: refused, or left out and counted"
    )
    lazy: bool | None = Field(
        None,
        description="images are decoded when a batch asks for them, not kept in memory; by default where they would "
        "take more than an eighth of it",
    )
    workers: int = Field(0, ge=0, le=256, description="lazy: processes that decode; 0: the one that trains does")

    @model_validator(mode="after")
    def _of_one_form(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("needs `path` or `hub`, one of them")
        for name in ("name", "revision") if self.hub is None else HUB_ALONE:
            if getattr(self, name) is not None:
                said = "`hub`" if self.hub is None else "`path`"
                raise ValueError(f"`{name}` goes with {said}")
        source = Path(self.path or "")
        saved = self.hub is not None or any((source / name).is_file() for name in SAVED)
        if not is_table(source):
            for name in ("root",) if saved else ("root", "image", "label", "values", "indicators"):
                if getattr(self, name) is not None:
                    raise ValueError(f"`{name}` goes with a table of paths, and {self.path} is none by its name")
        if self.workers and self.lazy is None:
            raise ValueError("`workers` decode images that are not in memory: write `lazy: true`")
        if self.workers and not self.lazy:
            raise ValueError("`workers` goes with `lazy: true`")
        _one_kind(self)
        return self


def _one_kind(given: Any) -> None:
    """ValueError where columns of labels contradict each other."""
    for columns, others in (("values", ("label", "indicators", "classes")), ("indicators", ("label", "classes"))):
        named = getattr(given, columns)
        for other in others if named else ():
            if getattr(given, other) is not None:
                raise ValueError(f"`{columns}` and `{other}` do not go together")
        if named and len(set(named)) < len(named):
            raise ValueError(f"`{columns}` names a column twice")


Label = Annotated[
    str | None, Field(description="column with the label: a whole number from 0, or a class name; by default `label`")
]
Values = Annotated[
    list[str] | None,
    Field(min_length=1, description="columns with values to learn (task: regression), instead of `label`"),
]
Indicators = Annotated[
    list[str] | None,
    Field(min_length=1, description="columns with labels that hold or not, 1 or 0 (task: multi_label), instead"),
]
Features = Annotated[list[str] | None, Field(min_length=1, description="feature columns; by default all numeric ones")]
Delimiter = Annotated[
    str | None,
    Field(min_length=1, max_length=1, description="of CSV, between cells: by default a comma, in a .tsv a tab"),
    AfterValidator(delimiter_of),
]
Encoding = Annotated[
    str | None, Field(description="of CSV and TSV, `latin-1` say; by default UTF-8"), AfterValidator(encoding_of)
]


class RowsConfig(Config):
    """A file with one sample per row and named columns."""

    path: str = Field(description="the file, plain or .gz")
    label: Label = None
    values: Values = None
    indicators: Indicators = None
    features: Features = None
    test_path: str | None = Field(None, description="file with the official test split, same columns")
    classes: int | None = Field(
        None, ge=1, description="number of classes; by default as many as path has; needed where nothing has a label"
    )
    validation_path: str | None = Field(None, description="file with the official validation split, same columns")
    transfer_path: str | None = Field(
        None, description="file with rows without labels, the split `transfer`; so are rows of path with an empty one"
    )
    lazy: bool | None = Field(
        None,
        description="numbers of all rows are in a file, not in memory; by default where they would take more than an "
        "eighth of it",
    )

    @model_validator(mode="after")
    def _labels(self) -> Self:
        _one_kind(self)
        return self


class DelimitedConfig(RowsConfig):
    """A CSV or TSV file with a header row."""

    delimiter: Delimiter = None
    encoding: Encoding = None


class SqlConfig(Config):
    """Queries to a database, which is only read."""

    query: str = Field(min_length=1, description="SELECT ... ORDER BY ...: the rows; a sample's id is its place")
    path: str | None = Field(None, description="an SQLite file")
    url: str | None = Field(
        None, description="any other database as SQLAlchemy names it, `postgresql+psycopg://host/name`; no password"
    )
    url_env: str | None = Field(None, description="the environment variable that holds such a URL, with its password")
    validation_query: str | None = Field(None, description="query for the official validation split, same columns")
    test_query: str | None = Field(None, description="query for the official test split, same columns")
    transfer_query: str | None = Field(None, description="query for rows without labels, the split `transfer`")
    label: Label = None
    values: Values = None
    indicators: Indicators = None
    features: Features = None
    classes: int | None = Field(None, ge=1, description="number of classes; by default as many as `query` gives")

    @model_validator(mode="after")
    def _one_database(self) -> Self:
        if sum(one is not None for one in (self.path, self.url, self.url_env)) != 1:
            raise ValueError("it needs one of `path`, `url` and `url_env`")
        _one_kind(self)
        return self


class WrittenConfig(Config):
    """Settings of `written`."""

    path: str | None = Field(None, description="a file streams/NAME.jsonl of a run's folder")
    entry: str | None = Field(
        None, description="in place of a file: an entry of the store, the history of a stream that a rule made"
    )
    round: int | None = Field(None, ge=1, description="of a history: as it stood after this round, by default the last")
    store: str | None = Field(None, description="folder or URL of the store; by default the run's own")
    test_path: str | None = Field(None, description="JSON lines of the official test split, with `prompt` and `text`")
    dropped: bool = Field(False, description="also texts that filters dropped")
    label: str | None = Field(
        None, description="column with the class of each text, to classify them: `prompt`, where it was asked for by it"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.path is None) == (self.entry is None):
            raise ValueError("it needs `path`, a file of a run's folder, or `entry`, of the store")
        if self.entry is None and (self.round is not None or self.store is not None):
            raise ValueError("`round` and `store` are of an `entry`, and a file has neither")
        return self


class NumeralsConfig(Config):
    """Settings of `numerals`."""

    below: int = Field(1000, ge=20, le=1000, description="the numbers are below this one")


class SumsConfig(Config):
    """Sums of two whole numbers, as text."""

    below: int = Field(20, ge=2, le=1000, description="both numbers are below this: its square samples")
    explained: bool = Field(False, description="answers say before themselves what the last digits add up to: 12>22")
    wrong: bool = Field(False, description="a wrong answer stands beside the right one, and is rejected")
    swapped: float = Field(
        0.0, ge=0, lt=1, description="wrong: share of training samples in which the two answers are the wrong way round"
    )

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.swapped and not self.wrong:
            raise ValueError("`swapped` goes with `wrong: true`")
        if self.explained and self.wrong:
            raise ValueError("`explained` and `wrong` do not go together")
        return self


class TextConfig(Config):
    """Texts in named columns: of files, of a folder that `save_to_disk` made, or of the Hugging Face hub.

    With `label` they are classified, with `values` or `indicators` a model learns these, with `query` candidates are
    ranked, with `spans` words are tagged, else a language model learns them.
    """

    path: str | None = Field(
        None, description=".csv or .jsonl file, plain or .gz, .parquet file, or folder of the `datasets` library"
    )
    validation_path: str | None = Field(None, description="file with the official validation split")
    test_path: str | None = Field(None, description="file with the official test split")
    transfer_path: str | None = Field(
        None, description="label: file with texts without labels, the split `transfer`; so are rows with an empty one"
    )
    delimiter: Delimiter = None
    encoding: Encoding = None
    hub: str | None = Field(None, description="id of a Hugging Face data set, instead of `path`")
    name: str | None = Field(None, description="hub: the data set's configuration")
    revision: str | None = Field(None, description="hub: branch, tag or commit")
    splits: dict[Literal["train", "validation", "test"], str] | None = Field(
        None, description="hub, folder: which of its splits are train, validation and test; by default those so named"
    )
    text: str | None = Field(
        None, description="column with the text, or with the completion of `prompt`; by default `text`"
    )
    pair: str | None = Field(None, description="column with a second text, to classify the two together")
    prompt: str | None = Field(None, description="column with what stands before the text and is not learned")
    messages: str | None = Field(
        None, description="column with turns {role, content}, instead of `text`: the assistant's are learned"
    )
    rejected: str | None = Field(
        None,
        description="column with a worse answer than `text` to the same prompt, or than the last of `messages`: these "
        "are then pairs, which streams with `pairs: true` read",
    )
    tools: str | None = Field(
        None, description="messages: column with what the assistant may call, as JSON schemas; by default `tools`"
    )
    spans: str | None = Field(None, description="column with {start, end, label}: words to tag; end is exclusive")
    query: str | None = Field(None, description="column with the query whose candidates are ranked, instead of `text`")
    candidates: str | None = Field(None, description="query: column with a list of texts, its candidates")
    relevance: str | None = Field(
        None, description="candidates: column with a list of numbers, how relevant each of them is; 0: not at all"
    )
    positive: str | None = Field(
        None, description="query: column with a relevant text, or a list of them, instead of `candidates`"
    )
    negative: str | None = Field(
        None, description="positive: column with a text that is not relevant, or a list; may be empty"
    )
    label: str | None = Field(None, description="column with the class: a whole number from 0, or a name")
    values: Values = None
    indicators: Indicators = None
    labels: list[str] | None = Field(
        None, min_length=1, description="names of the classes, or tags, in order; by default those found, sorted"
    )
    classes: int | None = Field(None, ge=1, description="number of classes; by default as many as train has")
    licence: str | None = Field(None, description="the data's licence, for the cards of what is trained on them")
    lazy: bool | None = Field(
        None,
        description="texts are read when a batch asks for them, not kept in memory, and their tokens are in files; by "
        "default where they would take more than an eighth of it",
    )

    @model_validator(mode="after")
    def _one_reading(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if ("path" in given) == ("hub" in given):
            raise ValueError("needs `path` or `hub`, one of them")
        for name, others in UNLIKE.items():
            if name in given and (odd := sorted(given & others)):
                raise ValueError(f"`{name}` and `{odd[0]}` do not go together")
        for name, owners in WITH.items():
            if name in given and not given & {*owners}:
                raise ValueError(f"`{name}` goes with {' or '.join(f'`{owner}`' for owner in owners)}")
        if "messages" in given and "prompt" in given and "rejected" not in given:
            raise ValueError("`messages` and `prompt` do not go together, but where there is a `rejected`")
        own = {one for one in LISTS if one in given}
        if "query" in given and own not in ({"candidates", "relevance"}, {"positive", "negative"}):
            raise ValueError("`query` goes with `candidates` and `relevance`, or with `positive` and `negative`")
        if own and "query" not in given:
            raise ValueError(f"`{min(own)}` goes with `query`")
        if self.lazy and "query" in given:
            raise ValueError("`query` and `lazy: true` do not go together: lists are read into memory")
        default = set() if given & {"text", "messages", "query"} else {"text"}
        columns = [*default, *(getattr(self, name) for name in COLUMNS if name in given)]
        columns += [*(self.values or ()), *(self.indicators or ())]
        if len(set(columns)) < len(columns):
            raise ValueError("one column has two meanings")
        return self


LISTS = ("candidates", "relevance", "positive", "negative")
COLUMNS = ("text", "pair", "prompt", "messages", "rejected", "tools", "spans", "query", *LISTS, "label")
WITH = {
    "transfer_path": ("label", "values", "indicators"),
    "rejected": ("text", "messages"),
    "tools": ("messages",),
    "labels": ("label", "spans"),
    "classes": ("label",),
}
"""Settings of a text that are about another one, of which one must be there."""
UNLIKE = {
    "hub": {"validation_path", "test_path", "transfer_path", "delimiter", "encoding"},
    "path": {"name", "revision"},
    "splits": {"validation_path", "test_path", "transfer_path"},
    "messages": {"text", "pair", "spans", "label", "labels", "classes", "values", "indicators"},
    "query": {
        "text",
        "pair",
        "prompt",
        "messages",
        "rejected",
        "spans",
        "label",
        "labels",
        "classes",
        "values",
        "indicators",
    },
    "rejected": {"pair", "spans", "label", "labels", "classes", "values", "indicators"},
    "prompt": {"pair", "spans", "label", "labels", "classes", "values", "indicators"},
    "spans": {"pair", "label", "classes", "values", "indicators"},
    "values": {"label", "labels", "classes", "indicators"},
    "indicators": {"label", "labels", "classes"},
    "labels": {"classes"},
}
"""Settings of a text that contradict each other."""


class DigitListsConfig(Config):
    """How long lists are."""

    candidates: int = Field(8, ge=2, le=64, description="of each query")
    relevant: int = Field(1, ge=1, le=10, description="how many of them are relevant; fewer than all")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.relevant >= self.candidates:
            raise ValueError(f"{self.relevant} of {self.candidates} candidates are relevant: some must not be")
        return self


class ListsConfig(Config):
    """Queries with candidates, a JSON object per line.

    `{"query": ..., "positives": [...], "negatives": [...]}`, negatives mined or not, or `{"query": ..., "candidates":
    [...], "labels": [...]}` with labels of 0 and above: texts everywhere, or vectors of one length.
    """

    path: str = Field(description=".jsonl file, plain or .gz")
    validation_path: str | None = Field(None, description="file with the official validation split")
    test_path: str | None = Field(None, description="file with the official test split")
    dimensions: int = Field(256, ge=8, le=65536, description="texts: columns that their words are counted in, by hash")
    ngrams: int = Field(1, ge=1, le=4, description="texts: runs of up to so many words are counted, too")


class TextFileConfig(Config):
    """One text, cut into samples for a language model."""

    path: str = Field(description="a text file in UTF-8, plain or .gz")
    characters: int = Field(512, ge=2, description="characters of a sample")
    test: float = Field(0.1, ge=0, lt=1, description="share of the samples, from the end: the official test split")
    licence: str | None = Field(None, description="the text's licence, for the cards of what is trained on it")


DATASETS = [
    DatasetOffer(
        "diabetes",
        "kdmesh.builtin.datasets.diabetes:diabetes",
        summary="442 patients, ten measurements and the progress of a disease, from scikit-learn",
    ),
    DatasetOffer(
        "digits",
        "kdmesh.builtin.datasets.digits:digits",
        summary="1,797 handwritten digits of 8x8 pixels, from scikit-learn",
        paper="Alpaydin & Kaynak, Cascading classifiers, Kybernetika 1998",
    ),
    DatasetOffer(
        "digit_attributes",
        "kdmesh.builtin.datasets.digit_attributes:digit_attributes",
        summary="the digits with five labels made from their classes: even, above four, prime ...",
    ),
    DatasetOffer(
        "digit_lists",
        "kdmesh.builtin.datasets.digit_lists:digit_lists",
        DigitListsConfig,
        "lists made of digits, to try ranking on: images of the query's digit are relevant",
        "Alpaydin & Kaynak, Cascading classifiers, Kybernetika 1998",
    ),
    DatasetOffer(
        "idx", "kdmesh.builtin.datasets.idx:idx", IdxConfig, "IDX image files as of MNIST, with their test split"
    ),
    DatasetOffer(
        "arrays", "kdmesh.builtin.datasets.arrays:arrays", ArraysConfig, "arrays of .npy, .npz or .safetensors"
    ),
    DatasetOffer(
        "images",
        "kdmesh.builtin.datasets.images:images",
        ImagesConfig,
        "PNG, JPEG and WebP in folders of classes, in a .zip or .tar, or listed in a table",
        pool=True,
    ),
    DatasetOffer(
        "torchvision",
        "kdmesh.builtin.datasets.torchvision:torchvision",
        TorchvisionConfig,
        "a data set of torchvision by name, from a folder",
    ),
    DatasetOffer(
        "csv",
        "kdmesh.builtin.datasets.csv_file:csv_file",
        DelimitedConfig,
        "a CSV or TSV file with a header row",
        pool=True,
        cells=True,
    ),
    DatasetOffer(
        "jsonl",
        "kdmesh.builtin.datasets.jsonl_file:jsonl_file",
        RowsConfig,
        "JSON objects, one per line",
        pool=True,
        cells=True,
    ),
    DatasetOffer(
        "parquet",
        "kdmesh.builtin.datasets.parquet_file:parquet_file",
        RowsConfig,
        "a Parquet file",
        pool=True,
        cells=True,
    ),
    DatasetOffer(
        "sql", "kdmesh.builtin.datasets.sql:sql", SqlConfig, "rows of a database, by a query", pool=True, cells=True
    ),
    DatasetOffer(
        "lists",
        "kdmesh.builtin.datasets.lists:lists",
        ListsConfig,
        "queries with candidates to rank, of JSONL: vectors, or texts as hashed counts of their words",
        "Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009",
    ),
    DatasetOffer(
        "text",
        "kdmesh.builtin.datasets.text:text",
        TextConfig,
        "texts of CSV, JSONL, Parquet or Hugging Face data sets: with labels, to rank or tag, or to learn as language",
        pool=True,
    ),
    DatasetOffer(
        "numerals",
        "kdmesh.builtin.datasets.numerals:numerals",
        NumeralsConfig,
        "numbers in words, even or odd, to try models of texts on",
    ),
    DatasetOffer(
        "sums",
        "kdmesh.builtin.datasets.sums:sums",
        SumsConfig,
        "sums of two numbers as prompts with answers, to try language models on",
    ),
    DatasetOffer(
        "text_file", "kdmesh.builtin.datasets.text_file:text_file", TextFileConfig, "a plain text, cut into samples"
    ),
    DatasetOffer(
        "written",
        "kdmesh.builtin.datasets.written:written",
        WrittenConfig,
        "texts that agents wrote in an earlier run, or agreed on, as prompts with answers",
        lookup="kdmesh.builtin.datasets.written:settle",
    ),
]
