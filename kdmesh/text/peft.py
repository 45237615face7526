"""Adapters through `peft`: low-rank updates, or a prefix; everything else of the model is frozen."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from kdmesh.builtin.models.offers import LoraSettings, PrefixSettings

_TASKS = {"classification": "SEQ_CLS", "token_classification": "TOKEN_CLS", "language_modelling": "CAUSAL_LM"}


def adapt(
    net: PreTrainedModel, task: str, lora: LoraSettings | None, prefix: PrefixSettings | None, base: str
) -> PeftModel:
    """Wrap a model: its adapters train, and of a classifier the head. ``base``: what the adapter's card calls it."""
    where = "model.hf.lora" if lora is not None else "model.hf.prefix"
    try:
        import peft
    except ImportError:
        raise MeshError("adapters need peft", where=where, instead="pip install kdmesh[peft]") from None
    config: Any
    kinds: Any = peft
    if lora is not None:
        config = kinds.LoraConfig(
            task_type=_TASKS[task],
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
        )
    else:
        assert prefix is not None
        config = peft.PrefixTuningConfig(task_type=_TASKS[task], num_virtual_tokens=prefix.length)
    try:
        with warnings.catch_warnings():  # peft asks transformers by old names, and tells of a setting it mends itself
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "fan_in_fan_out is set")
            adapted = peft.get_peft_model(net, config)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise MeshError(
            f"peft cannot adapt {net.config.model_type}: {error}",
            where=where,
            instead="targets: [names of linear layers], or another architecture",
        ) from None
    config.base_model_name_or_path = base
    return adapted
