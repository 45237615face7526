"""A model of scikit-learn that skops saved: its probabilities, or values, as a frozen agent's answers.

A file of skops names the types that it holds, and nothing of it is built before these are known: no pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from kdmesh.builtin.models._file import FileModel
from kdmesh.errors import MeshError, text_of

TREES = ("sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor")
"""Compiled trees, which follow the places that a file gives without a look: these are looked at here, see `_sound`."""

REVIEWED = (
    *TREES,
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
)
"""Types that skops does not trust by itself, and that we have read: of the others, all are attributes of Python, and
none runs what a file holds."""


class SklearnFile(FileModel):
    """See the module; ``trusted``: further types that whoever writes the mesh has reviewed."""

    name, library, extra = "sklearn", "skops", "skops"

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        path: Path,
        trusted: list[str],
        size: int | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, size, input_shape, classes, labels, trusted=trusted)

    def open(self, content: bytes) -> Any:
        """The estimator. MeshError that names types which nobody has reviewed."""
        from skops import io

        trusted, held = {*self.settings["trusted"]}, {*io.get_untrusted_types(data=content)}
        odd = sorted(held - {*REVIEWED} - trusted)
        if odd:
            what = f"holds types that are not reviewed: {', '.join(odd)}"
            instead = f"another file; or, where you have read what these do, trusted: [{', '.join(odd)}] beside path"
            raise self._wrong(what, instead)
        if idle := sorted(trusted - held - _types(content)):
            what = f"{self.kdmesh_file} holds no {', '.join(idle)}"
            raise MeshError(what, where=f"model.{self.name}.trusted", instead="leave it out: another file may hold it")
        try:
            model = io.loads(content, trusted=sorted(held))
        except (ImportError, AttributeError) as error:
            what = f"holds what cannot be imported here: {text_of(error)}"
            instead = "an estimator of scikit-learn; or the package that has these types, installed beside kdmesh"
            raise self._wrong(what, instead) from None
        for one in _trees(model, set()):
            if not _sound(one, math.prod(self.shape)):
                raise self._wrong("has a tree that leads out of itself", "a complete file, from whom you trust")
        return model

    def answers(self, model: Any, x: np.ndarray) -> np.ndarray:
        """Logarithms of ``predict_proba``, or values of ``predict``."""
        rows = x.reshape(len(x), -1)
        if not hasattr(model, "predict_proba"):
            found = np.asarray(model.predict(rows), dtype=np.float32)
            return found if found.ndim == 2 else found[:, None]
        shares = model.predict_proba(rows)
        if not isinstance(shares, np.ndarray):
            raise self._wrong("answers for several labels at once", "a model of one label, or of values")
        return self._log(self._in_order(shares, model.classes_))


def _types(content: bytes) -> set[str]:
    """Everything that a file names as a type or function, whether or not skops trusts it."""
    with ZipFile(BytesIO(content)) as packed:
        rest, found = [json.loads(packed.read("schema.json"))], set()
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            found.add(f"{one.get('__module__')}.{one.get('__class__')}")
        rest += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return found


def _trees(value: Any, seen: set[int]) -> Iterator[Any]:
    """The compiled trees that an estimator holds, wherever they are."""
    if id(value) in seen or isinstance(value, str | bytes | int | float | type(None)):
        return
    seen.add(id(value))
    if f"{type(value).__module__}.{type(value).__qualname__}" in TREES:
        yield value
        return
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple | set) or (isinstance(value, np.ndarray) and value.dtype == object):
        inner = value.ravel() if isinstance(value, np.ndarray) else value
    elif hasattr(value, "__dict__"):
        inner = vars(value).values()
    for one in inner:
        yield from _trees(one, seen)


def _sound(tree: Any, features: int) -> bool:
    """Whether every node of a tree leads to later ones of it, and reads a feature that there is."""
    if hasattr(tree, "nodes"):
        nodes = tree.nodes
        inner = nodes["is_leaf"] == 0
        left, right, feature = (nodes[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
        sets = nodes["bitset_idx"].astype(np.int64)[inner & (nodes["is_categorical"] != 0)]
        if len(sets) and int(sets.max()) >= min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets)):
            return False
    else:
        left, right, feature = tree.children_left, tree.children_right, tree.feature
        inner = left != -1
    at = np.arange(len(left))
    ahead = [(at[inner] < side[inner]) & (side[inner] < len(left)) for side in (left, right)]
    return bool(len(left) and all(one.all() for one in ahead) and ((feature >= 0) & (feature < features))[inner].all())
