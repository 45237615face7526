"""What the packages beside kdmesh offer, so that a name that is not known says what to install. Imports nothing."""

from __future__ import annotations

OFFERED = {
    ("consensus", "aekd"): "kdmesh-gradient",
    ("consensus", "attention"): "kdmesh-gated",
    ("consensus", "gate"): "kdmesh-gated",
    ("consensus", "kdcl_linear"): "kdmesh-logit",
    ("consensus", "kdcl_min_logit"): "kdmesh-logit",
    ("gates", "adaptive_share"): "kdmesh-lm",
    ("models", "branched"): "kdmesh-gated",
    ("objectives", "adaptive_kl"): "kdmesh-lm",
    ("objectives", "crd"): "kdmesh-relational",
    ("objectives", "dist"): "kdmesh-logit",
    ("objectives", "dkd"): "kdmesh-logit",
    ("objectives", "dpo"): "kdmesh-preference",
    ("objectives", "dpo_distilled"): "kdmesh-preference",
    ("objectives", "entropy_aware_kl"): "kdmesh-lm",
    ("objectives", "mass_weighted_kl"): "kdmesh-lm",
    ("objectives", "minilm"): "kdmesh-relational",
    ("objectives", "policy_gradient"): "kdmesh-rl",
    ("objectives", "rkd"): "kdmesh-relational",
    ("objectives", "sp"): "kdmesh-relational",
    ("objectives", "standardised_kl"): "kdmesh-logit",
    ("objectives", "taught_kl"): "kdmesh-gated",
    ("recognisers", "presidio"): "kdmesh-presidio",
    ("recognisers", "presidio_patterns"): "kdmesh-presidio",
    ("samplers", "optuna"): "kdmesh-optuna",
    ("strategies", "okddip"): "kdmesh-gated",
    ("strategies", "one"): "kdmesh-gated",
    ("text_rules", "declared"): "kdmesh-preference",
    ("text_rules", "right_over_wrong"): "kdmesh-preference",
}
"""By kind and name, the package."""
