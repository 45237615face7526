"""A folder signed, and its signature verified: by model-signing (OpenSSF), with a key of one's own, offline.

The signature is over the sha256 of every file but those that may be made anew, or that only say who is at work.
"""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import LOCK, PROGRESS, SIGNATURE
from kdmesh.errors import MeshError
from kdmesh.files import found_at, reason, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEFT_OUT = (SIGNATURE, LOCK, PROGRESS, "report.html")
"""What no signature covers, by its place in the folder."""


def sign(root: Path, key: Path, password: str | None = None) -> Path:
    """Sign a folder with a private key (PEM, of an elliptic curve); gives the signature's file."""
    _folder(root)
    model_signing = _library()
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=_left_out(root), ignore_git_paths=False)
    config = model_signing.signing.Config().set_hashing_config(hashing)
    try:
        config.use_elliptic_key_signer(private_key=_key(key), password=password)
    except (ValueError, TypeError) as error:
        what = f"this is no private key of an elliptic curve that can be read: {_brief(error)}"
        raise MeshError(what, file=str(key), where="--key", instead="a PEM file; of one with a password also "
                        "--password-env") from None  # fmt: skip
    try:
        config.sign(root, root / SIGNATURE)
    except ValueError as error:
        raise MeshError(_brief(error), file=str(root), instead="a folder of plain files") from None
    except OSError as error:
        raise MeshError(reason(error), file=str(root), instead="a folder that is writable") from None
    return root / SIGNATURE


def faults(root: Path, key: Path) -> list[str]:
    """What is wrong with a folder by its signature, a line each; ``key``: the public key (PEM)."""
    _folder(root)
    path = root / SIGNATURE
    if not path.is_file():
        raise MeshError(f"{root} has no {SIGNATURE}", where="--key", instead=f"kdmesh sign {root} --key PRIVATE")
    model_signing = _library()
    config = model_signing.verifying.Config()
    try:
        config.use_elliptic_key_verifier(public_key=_key(key))
    except (ValueError, TypeError) as error:
        what = f"this is no public key that can be read: {_brief(error)}"
        raise MeshError(what, file=str(key), where="--key", instead="the PEM file of the public key") from None
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=_left_out(root), ignore_git_paths=False)
    try:
        config.set_hashing_config(hashing).verify(root, path)
    except Exception as error:  # of whatever libraries read a signature by: a damaged one is any of theirs
        if not str(error).startswith("Signature mismatch"):
            return [f"{SIGNATURE} is not of this key, or was changed"]
        return list(_changed(root, path)) or [f"{SIGNATURE} is of other files"]
    return []


def _left_out(root: Path) -> list[str]:
    """What is not signed, here and in the folders of parts."""
    names = [path.relative_to(root).as_posix() for name in LEFT_OUT[1:] for path in root.rglob(name)]
    return [*LEFT_OUT, *(name for name in names if name not in LEFT_OUT)]


def _changed(root: Path, path: Path) -> Iterator[str]:
    """Which files are not as they were signed; the signature is known to be the key's."""
    payload = json.loads(base64.b64decode(json.loads(path.read_text(encoding="utf-8"))["dsseEnvelope"]["payload"]))
    signed: dict[str, str] = {one["name"]: one["digest"] for one in payload["predicate"]["resources"]}
    there = {one.relative_to(root).as_posix(): one for one in root.rglob("*") if one.is_file() or one.is_symlink()}
    for name in signed:
        if name not in there:
            yield f"{name} is missing, and was signed"
        elif sha256(there[name]) != signed[name]:
            yield f"{name} is not what was signed"
    left = {*_left_out(root)}
    yield from (
        f"{name} was added after it was signed" for name in sorted(there) if name not in signed and name not in left
    )


def _folder(root: Path) -> None:
    if not root.is_dir():
        raise MeshError(f"{root} {found_at(root)}", instead="the folder of a run, or of an agent")


def _key(path: Path) -> Path:
    if not path.is_file():
        raise MeshError(f"there is no file {path}", where="--key", instead="openssl ecparam -name prime256v1 -genkey")
    return path


def _library() -> Any:
    try:
        import model_signing
        import model_signing.hashing
        import model_signing.signing
        import model_signing.verifying
    except ImportError as error:
        what = f"signing needs model-signing and pyOpenSSL, and {error.name} is not installed"
        raise MeshError(what, instead="pip install 'kdmesh[signing]'") from None
    return model_signing


def _brief(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def password_of(name: str | None) -> str | None:
    """The password in an environment variable; MeshError where there is none of that name."""
    if name is None:
        return None
    if name not in os.environ:
        raise MeshError(f"the environment has no {name}", where="--password-env", instead="the name of one that it has")
    return os.environ[name]
