import json

import optuna
from optuna_lines import Lines


def test_lines(tmp_path):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.number / 2, n_trials=2, callbacks=[Lines(tmp_path / "lines.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert lines == [{"trial": 0, "value": 0.0}, {"trial": 1, "value": 0.5}]
