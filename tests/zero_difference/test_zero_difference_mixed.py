"""Mixed batches with a teacher: kdmesh and plain loops end with the same weights, to the bit."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import plain_mixed
import pytest
from both import CNN, EPOCHS, MLP, Both

from kdmesh.streams.seeds import at_step, mix

STEPS = 3 * EPOCHS
CASES = {
    "mixup": ({"mixup": {"alpha": 0.4}}, plain_mixed.mixup(0.4)),
    "uniform": ("mixup", plain_mixed.mixup(1.0)),
    "each": ({"mixup": {"alpha": 0.4, "per": "sample"}}, plain_mixed.mixup_each(0.4)),
    "cutmix": ("cutmix", plain_mixed.cutmix(1.0)),
}


def seeds(view: Any) -> list[int]:
    """Of the generator of each step: by the run's seed, stream and lesson, and by the step."""
    name, own = view if isinstance(view, str) else next(iter(view)), mix("mix", "train", "", "main")
    return [mix(mix(7, "mix"), name, at_step(own, step)) for step in range(STEPS)]


def both(student: Any, views: dict[str, Any], **fields: Any) -> Both:
    more = {"t": {"update": "frozen", "view": views["t"]}, "s": {"view": views["s"]}}
    return Both("sgd", {"t": CNN, "s": student}, "ensemble", more=more, teachers="t", student="s", labels=0.5, **fields)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("consistent", [True, False], ids=["same mix", "samples"])
def test_a_teacher_on_the_same_mix_or_on_samples(case: str, consistent: bool) -> None:
    view, plainly = CASES[case]
    made = both(MLP, {"t": {"augment": [view]} if consistent else {}, "s": {"augment": [view]}})
    modules = made.modules
    plain_mixed.distil(modules["s"], modules["t"], made.data, made.make, plainly, seeds(view), consistent=consistent)
    assert made.difference() == 0.0


def test_to_see_as_another_does_is_to_see_the_same_mix() -> None:
    made = both(MLP, {"t": {"of": "s"}, "s": {"augment": ["mixup"]}})
    plainly, numbers = plain_mixed.mixup(1.0), seeds("mixup")
    plain_mixed.distil(made.modules["s"], made.modules["t"], made.data, made.make, plainly, numbers, consistent=True)
    assert made.difference() == 0.0


def test_mixes_of_its_own_are_others() -> None:
    made = both(MLP, {"t": {"augment": ["mixup"], "apart": True}, "s": {"augment": ["mixup"]}})
    plainly, numbers = plain_mixed.mixup(1.0), seeds("mixup")
    plain_mixed.distil(made.modules["s"], made.modules["t"], made.data, made.make, plainly, numbers, consistent=True)
    assert made.difference() > 1e-4


def test_the_plain_loops_import_nothing_of_kdmesh() -> None:
    tree = ast.parse(Path(plain_mixed.__file__).read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in found} == {
        "__future__",
        "collections",
        "functools",
        "math",
        "plain",
        "scipy",
        "torch",
    }
