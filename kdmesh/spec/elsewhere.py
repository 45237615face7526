"""Where a field belongs that was written in the wrong place, or under the name that another tool gives it."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from kdmesh.spec import offered
from kdmesh.spec.annotations import alternatives, is_model
from kdmesh.spec.base import Named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

DEEP = 5  # steps from a part of the file to a field that may be meant
FAR = 3  # the cost of another name than the file's, and of a field that must stand beside

_SAME = {
    "objective": "loss losses criterion loss_fn loss_function distill_loss kd_loss",
    "labels": "alpha ce_weight hard_weight label_weight labels_weight hard_loss_weight",
    "weight": "alpha kd_weight soft_weight distill_weight distillation_weight kd_alpha loss_weight lambda",
    "temperature": "T t temp tau kd_temperature temperatures",
    "lr": "learning_rate base_lr",
    "weight_decay": "wd",
    "epochs": "num_epochs num_train_epochs n_epochs max_epochs epoch",
    "steps": "max_steps num_steps iterations",
    "batch_size": "bs batch batchsize per_device_train_batch_size train_batch_size",
    "forward_size": "eval_batch_size per_device_eval_batch_size inference_batch_size teacher_batch_size",
    "optimizer": "optim optimiser",
    "schedule": "scheduler lr_scheduler lr_schedule lr_scheduler_type",
    "clip": "grad_clip max_grad_norm clip_grad_norm gradient_clipping gradient_clip_val",
    "accumulate": "gradient_accumulation_steps grad_accum accumulate_grad_batches",
    "precision": "fp16 bf16 amp mixed_precision dtype",
    "evaluate_every": "eval_every eval_steps eval_interval",
    "teachers": "teacher teacher_model teacher_models",
    "student": "student_model learner",
    "students": "student_models learners",
    "consensus": "aggregation aggregate aggregator fusion combine rule",
    "classes": "num_classes n_classes num_labels",
    "hidden": "hidden_size hidden_sizes hidden_dim hidden_layers units layers",
    "weights": "pretrained checkpoint ckpt state_dict init_from",
    "update": "frozen freeze trainable requires_grad",
    "model": "arch architecture network net",
    "data": "dataset train_data datasets",
    "validation": "val valid val_split validation_split val_size",
    "test": "test_split test_size",
    "agents": "models",
    "seed": "random_seed random_state",
    "augment": "augmentation augmentations transform transforms",
    "max_length": "max_len max_seq_length max_seq_len",
    "over": "truncation",
    "pack": "packing",
    "tap": "layer feature features hint_layer",
    "connect": "strategy strategies distill distillation method",
}
OTHERS: dict[str, list[str]] = {}
"""What other tools call a field: its names here, by theirs."""
for _ours, _theirs in _SAME.items():
    for _word in _theirs.split():
        OTHERS.setdefault(_word, []).append(_ours)


class _Part(NamedTuple):
    """A place in the file that a pydantic model describes, as the search for a misplaced field visits it.

    ``written``: the path from the start of the search to this place, as YAML, with ``{}`` where its fields go.
    ``given``: what the file has at this place. ``cost``: how unlikely the place is: 1 for each section that the file
    does not have yet, more for each name that would have to change and each required field that is missing.
    ``depth``: steps from the start.
    """

    model: type[BaseModel]
    written: str
    given: Any = None
    cost: float = 0
    depth: int = 0


def elsewhere(
    name: str, value: Any, owner: type[BaseModel], given: Any, whole: type[BaseModel], file: Any = None
) -> str:
    """Say where a field that ``owner`` does not have is to be written; empty where nobody has one of this name.

    ``given``: what the file has at ``owner``'s place, whose names are kept; ``whole``: the model of the whole file;
    ``file``: its data, where they are known.
    """
    named = _as_a_name(name, value, owner)
    if named:
        return named
    others = OTHERS.get(name, [])
    own = [other for other in others if other in fields(owner)]
    if own:
        return ", or ".join(_told(fields(owner)[other], f"{other}: {_value(value)}") for other in own)
    starts = [(_Part(owner, "{}", given), "")]
    if owner is not whole and name != "path":  # so many have one that any would be found
        starts.append((_Part(whole, "{}", file, cost=1.5), ", at the top of the file"))
    found = [
        (cost, number, text + end)
        for number, ours in enumerate([name, *others])
        for start, end in starts
        for cost, text in [_find(ours, value, start)]
        if text
    ]
    return min(found)[-1] if found else ""


def _as_a_name(name: str, value: Any, owner: type[BaseModel]) -> str:
    """The field in which this name is chosen, where it is one that something offered has."""
    for key, field in fields(owner).items():
        for member in alternatives(field.annotation):
            many = get_origin(member) is list
            ref = get_args(member)[0] if many else member
            if is_model(ref, Named) and ref.kind and name in offered.names(ref.kind):
                chosen = f"{{{name}: ...}}" if value else name
                return f"`{key}: {f'[{chosen}]' if many else chosen}`"
    return ""


def _find(name: str, value: Any, start: _Part) -> tuple[float, str]:
    """The field of this name below a model that the file is nearest to: what it costs, and how it is written."""
    number = count()
    queue, seen = [(start.cost, start.depth, next(number), start)], set()
    while queue:
        part = heapq.heappop(queue)[-1]
        if part.model in seen:
            continue
        seen.add(part.model)
        field = fields(part.model).get(name)
        if field is not None:
            beside = "".join(f"{text}, " for key, text in _lacking(part).items() if key != name)
            inside = f"{beside}{name}: {_value(value)}"
            return part.cost, _told(field, part.written.replace("{}", f"{{{inside}}}") if part.depth else inside)
        if part.depth < DEEP:
            for inner in _inside(part, value):
                heapq.heappush(queue, (inner.cost, inner.depth, next(number), inner))
    return 0, ""


def _lacking(part: _Part) -> dict[str, str]:
    """The fields that must stand beside any other of a part, and do not yet, as they would be written."""
    required = [key for key, field in fields(part.model).items() if field.is_required()]
    if isinstance(part.given, str) and len(required) == 1:  # the short form
        return {required[0]: f"{required[0]}: {part.given}"}
    given = part.given if isinstance(part.given, dict) else {}
    return {key: f"{key}: ..." for key in required if key not in given}


def _inside(part: _Part, value: Any) -> Iterator[_Part]:
    """The models one step below a model."""
    for key, field in fields(part.model).items():
        default = field.get_default(call_default_factory=True)
        given = part.given.get(key) if isinstance(part.given, dict) else None
        cost = part.cost + (given is None and not isinstance(default, BaseModel))
        for member in alternatives(field.annotation):
            inside, own, kind = "{}", given, member
            if get_origin(member) is dict:
                inside, kind = "{NAME: {}}", get_args(member)[-1]
                own = next(iter(given.values()), None) if isinstance(given, dict) else None
            elif get_origin(member) is list:
                inside, kind = "[{}]", get_args(member)[0]
                own = given[0] if isinstance(given, list) and given else None
            written = f"{key}: {inside}" if part.written == "{}" else f"{{{key}: {inside}}}"
            below = _Part(part.model, part.written.replace("{}", written), own, cost, part.depth + 1)
            for model in alternatives(kind):
                if is_model(model, Named):
                    yield from _chosen(model, below, default, value)
                elif is_model(model, BaseModel):
                    inner = below._replace(model=model)
                    yield inner._replace(cost=cost + (FAR + 1) * len(_lacking(inner)))


def _chosen(ref: type[Named], at: _Part, default: Any, value: Any) -> Iterator[_Part]:
    """The settings of what is chosen by name: of what the file or the default names, then of every other."""
    given = at.given
    usual = default.name if isinstance(default, Named) else ""
    named = given if isinstance(given, str) else next(iter(given)) if isinstance(given, dict) and given else usual
    configs = offered.configs(ref.kind) if ref.kind else dict(ref.usual)
    if ref.usual and named not in configs:
        configs = {named or next(iter(configs)): next(iter(configs.values()))} | configs
    for name, config in configs.items():
        inside = given[name] if isinstance(given, dict) and name in given else None
        near = name == usual or ref.usual or str(value).endswith(f".{name}")  # path: x.csv
        other = 0 if name == named else 1 if near else FAR
        yield at._replace(
            model=config, written=at.written.replace("{}", f"{{{name}: {{}}}}"), given=inside, cost=at.cost + other
        )


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model, as they are written."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _told(field: FieldInfo, written: str) -> str:
    return f"`{written}`" + (f" ({field.description})" if field.description else "")


def _value(value: Any) -> str:
    """What was found, where it is a number or a word; else dots."""
    plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    return str(value) if plain and 0 < len(str(value)) < 30 else "..."
