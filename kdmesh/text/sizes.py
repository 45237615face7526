"""How wide a language model's last layer is, as far as its settings tell: no library of models is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdmesh.files import read

SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier_scale")
"""Settings by which architectures change logits after the last layer, so that hidden rows do not tell them."""

SCALED = ("gemma2", "gemma3n", "gemma3n_text", "cohere", "cohere2", "granite", "granitemoe")
"""Those that do so by default. What a model really does is asked of itself (`probes.is_projection`) in `check`."""

MOST = 1 << 24
"""Bytes of a config.json: the longest list some tens of thousands of labels."""

WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")  # what architectures call it


def sizes(config: Any) -> tuple[int | None, int | None]:
    """Values of a row that the last layer maps, and how many outputs it maps it to; None: not known from settings.

    ``config``: :class:`~kdmesh.text.settings.HfConfig`. A folder's config.json is read, a hub id is not asked.
    """
    settings: dict[str, Any] = {}
    if config.path is not None:
        try:
            found = json.loads(read(Path(config.path).expanduser() / "config.json", most=MOST))
        except (OSError, ValueError, RecursionError):
            found = None  # said when the model is built
        settings = found if isinstance(found, dict) else {}
    settings = settings | config.config
    if any(settings.get(name) not in (None, 1, 1.0) for name in SCALES) or (
        settings.get("model_type") in SCALED and not any(name in settings for name in SCALES)
    ):
        return None, settings.get("vocab_size") if isinstance(settings.get("vocab_size"), int) else None
    width = next((settings[name] for name in WIDTHS if isinstance(settings.get(name), int)), None)
    outputs = settings.get("vocab_size")
    return width, outputs if isinstance(outputs, int) else None
