"""kdmesh verify: a folder of a run against what the run left."""

import json

import pytest

from kdmesh.cli import main
from kdmesh.files import sha256


def told(capsys, *arguments):
    code = main(["verify", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, " ".join(shown.out.split()), " ".join(shown.err.split())


@pytest.mark.parametrize("name", ["small", "several"])
def test_a_run_as_it_was_left(runs, capsys, name):
    code, out, _ = told(capsys, runs[name])
    assert code == 0 and "files are as they were written" in out
    kept = sha256(runs[name] / "sums.json")
    assert kept in out.replace(" ", "")
    assert told(capsys, runs[name], "--sum", kept.upper())[0] == 0


@pytest.mark.parametrize("part", ["", "seeds/1"])
def test_one_flipped_byte_is_named(runs, capsys, part):
    root = runs["several" if part else "small"]
    file = root / part / "agents/s/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    code, out, _ = told(capsys, root)
    assert code == 1 and "1 fault;" in out
    assert f"{file.relative_to(root).as_posix()} is not what was written" in out


def test_what_is_missing_and_what_was_added(runs, capsys):
    root = runs["several"]
    (root / "seeds/0/agents/t1/config.json").unlink()
    (root / "seeds/0/agents/s/pytorch_model.bin").write_bytes(b"0")
    (root / "seeds/7").mkdir()
    code, out, _ = told(capsys, root)
    assert code == 1 and "3 faults;" in out
    assert "seeds/0/agents/t1/config.json is missing" in out
    assert "seeds/0/agents/s/pytorch_model.bin was added" in out
    assert "seeds/7 was added" in out


def test_sums_that_were_made_to_fit_are_told_by_their_own(runs, capsys):
    root = runs["small"]
    kept = sha256(root / "sums.json")
    (root / "agents/s/README.md").write_text("another")
    sums = json.loads((root / "sums.json").read_text())
    sums["sha256"]["agents/s/README.md"] = sha256(root / "agents/s/README.md")
    (root / "sums.json").write_text(json.dumps(sums))
    assert told(capsys, root)[0] == 0
    code, out, _ = told(capsys, root, "--sum", kept)
    assert code == 1 and "sums.json is not the one whose sum was given" in out


def test_what_no_sum_covers_is_said(runs, capsys):
    assert "no sum covers: checkpoints" in told(capsys, runs["small"])[1]


def test_a_folder_that_is_no_finished_run(runs, capsys, tmp_path):
    code, _, err = told(capsys, runs.unfinished(runs["small"]))
    assert code == 2 and "sums.json is not there" in err
    code, _, err = told(capsys, tmp_path / "nowhere")
    assert code == 2 and "there is no such folder" in err


def test_sums_that_name_a_file_elsewhere(runs, capsys):
    root = runs["small"]
    sums = json.loads((root / "sums.json").read_text())
    sums["sha256"]["../../../elsewhere"] = "0" * 64
    (root / "sums.json").write_text(json.dumps(sums))
    code, out, _ = told(capsys, root)
    assert code == 1 and "leads outside of this folder" in out
