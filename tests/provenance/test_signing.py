"""A signed folder: what was changed, taken away or added is named, and so is a signature by another key."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kdmesh.cli import main
from kdmesh.contracts.run_files import SIGNATURE
from kdmesh.errors import MeshError
from kdmesh.provenance.signing import faults, sign


def keys(folder, name="mine"):
    private = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / f"{name}.pub").write_bytes(
        private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return folder / f"{name}.pem", folder / f"{name}.pub"


def folder(root):
    (root / "agents/s").mkdir(parents=True)
    (root / "bom.json").write_text("{}")
    (root / "agents/s/model.safetensors").write_bytes(bytes(100))
    return root


def test_every_kind_of_change_is_named(tmp_path):
    private, public = keys(tmp_path)
    root = folder(tmp_path / "run")
    sign(root, private)
    (root / "report.html").write_text("made later")
    assert faults(root, public) == []
    file = root / "agents/s/model.safetensors"
    content = bytearray(file.read_bytes())
    content[50] ^= 1
    file.write_bytes(content)
    assert faults(root, public) == ["agents/s/model.safetensors is not what was signed"]
    (root / "bom.json").unlink()
    (root / "agents/s/more.bin").write_bytes(b"1")
    assert set(faults(root, public)) == {
        "agents/s/model.safetensors is not what was signed",
        "bom.json is missing, and was signed",
        "agents/s/more.bin was added after it was signed",
    }


def test_a_signature_by_another_key_and_one_that_was_changed(tmp_path):
    private, public = keys(tmp_path)
    _, other = keys(tmp_path, "other")
    root = folder(tmp_path / "run")
    sign(root, private)
    assert faults(root, other) == [f"{SIGNATURE} is not of this key, or was changed"]
    (root / SIGNATURE).write_text("{}")
    assert faults(root, public) == [f"{SIGNATURE} is not of this key, or was changed"]


def test_wrong_keys_and_a_folder_without_a_signature_are_named(tmp_path):
    private, public = keys(tmp_path)
    root = folder(tmp_path / "run")
    for call, said in (
        (lambda: faults(root, public), f"has no {SIGNATURE}"),
        (lambda: sign(root, public), "no private key"),
        (lambda: sign(root, tmp_path / "none.pem"), "there is no file"),
        (lambda: sign(tmp_path / "nowhere", private), "nowhere"),
    ):
        with pytest.raises(MeshError, match=said):
            call()
    sign(root, private)
    with pytest.raises(MeshError, match="no public key"):
        faults(root, root / "bom.json")


def test_a_run_is_signed_and_verified_by_commands(runs, tmp_path, capsys):
    private, public = keys(tmp_path)
    root = runs["small"]
    assert main(["sign", str(root), "--key", str(private)]) == 0
    assert main(["verify", str(root), "--key", str(public)]) == 0
    assert "and signed" in capsys.readouterr().out
    bom = root / "bom.json"
    bom.write_text(bom.read_text(encoding="utf-8").replace('"1.6"', '"1.5"'), encoding="utf-8")
    assert main(["verify", str(root), "--key", str(public)]) == 1
    out = capsys.readouterr().out
    assert "bom.json is not what was written" in out and "bom.json is not what was signed" in out
    assert "bom.json is CycloneDX 1.5; kdmesh writes CycloneDX 1.6" in out


def test_lineage_as_text_and_as_json(runs, capsys):
    assert main(["lineage", str(runs["several"])]) == 0
    out = capsys.readouterr().out
    assert f"taught by {runs['several'].name}/t1" in out and "s (student)" in out
    assert main(["lineage", str(runs["several"]), "--json"]) == 0
    assert '"how": "taught"' in capsys.readouterr().out
    assert main(["lineage", str(runs.root)]) == 2
