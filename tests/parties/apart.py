"""Organisations on one machine: a folder, keys and samples of digits for each, and their processes."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sklearn.datasets import load_digits

PATIENCE = 400.0
NOW = ("-m", "kdmesh")


def certificates(folder, name, authority=None, days=2, host=False, begins=-3):
    """A certificate by an authority (itself where there is none), with its key, as files of a folder."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing = (subject, key) if authority is None else authority
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    )
    if host:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    signed = made.sign(signing, hashes.SHA256())
    if authority is None:
        return (subject, key), signed.public_bytes(serialization.Encoding.PEM)
    folder.mkdir(parents=True)
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    own = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(own)
    (folder / "key.pem").chmod(0o600)
    return None


def lay_out(root, parties, mesh):
    """Folders of parties, by whose name are the rows of digits that are theirs and their classes, and a coordinator's.

    ``mesh``: what all have, by where a party's samples are. Returns the authority.
    """
    x, y = load_digits(return_X_y=True)
    authority, ca = certificates(root, "authority")

    def write(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"p{number}" for number in range(64)), "digit"])
            writer.writerows([*x[row].astype(int), f"d{y[row]}"] for row in rows)

    for name in (*parties, "coordinator"):
        certificates(root / "keys" / name, name, authority, host=name == "coordinator")
        (root / "keys" / name / "ca.pem").write_bytes(ca)
        write(root / name / "public.csv", range(300))
        own = mesh(lambda other, name=name: "own.csv" if other == name else "elsewhere.csv")
        (root / name / "mesh.yaml").write_text(yaml.safe_dump(own))  # of others each knows that they have some
    for name, (rows, classes) in parties.items():
        write(root / name / "own.csv", [row for row in rows if y[row] in classes])
    (root / "coordinator" / "simulated.yaml").write_text(yaml.safe_dump(mesh(lambda other: f"../{other}/own.csv")))
    return authority, ca


def data_of(path):
    return {"csv": {"path": path, "label": "digit"}}


def begin(place, name, *args, program=NOW, **environment):
    """A command in an organisation's own folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KDMESH_STORE": "off", "PYTHONUNBUFFERED": "1", **environment}
    log = (place / name / f"{args[0]}-{time.monotonic_ns()}.log").open("w+")
    process = subprocess.Popen(
        [sys.executable, *program, *args], cwd=place / name, env=environment, stdout=log, stderr=log
    )
    process.log = Path(log.name)
    return process


def until(process, pattern, patience=PATIENCE):
    """Wait until a process has said something; what was said."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := re.search(pattern, process.log.read_text()):
            return found
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"{pattern!r} was not said:\n{process.log.read_text()[-3000:]}")


def coordinate(place, out, *more, **options):
    process = begin(place, "coordinator", "run", "mesh.yaml", "--parties", "remote", "--listen", "localhost:0",
                    "--tls", str(place / "keys" / "coordinator"), "--out", out, "--no-report", *more,
                    **options)  # fmt: skip
    return process, until(process, r"listening on (localhost:\d+)").group(1)


def party(place, name, address, out, *more, keys=None, patience="60", **options):
    tls = str(place / "keys" / (keys or name))
    return begin(place, name, "party", "mesh.yaml", "--as", name, "--join", address, "--tls", tls, "--out", out,
                 "--patience", patience, *more, **options)  # fmt: skip


def simulate(place, out, *more):
    process = begin(place, "coordinator", "run", "simulated.yaml", "--out", out, "--no-report", *more)
    assert process.wait(PATIENCE) == 0, process.log.read_text()
    return summary(place, out)


def summary(place, out):
    (path,) = (place / "coordinator" / out).glob("clinics/*/summary.json")
    return json.loads(path.read_text())


def hashes_of(found):
    return {name: agent["weights_sha256"] for name, agent in found["agents"].items()}
