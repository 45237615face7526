"""Files of a run: written whole or not at all, and never outside the folder they belong to.

Every file is written aside in its own folder, synced and renamed, so that a kill or a full disk leaves the one before.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

WEIGHTS, CONFIG, OURS = "model.safetensors", "config.json", "kdmesh.json"  # of an agent's folder
RULE = "consensus.json"  # of a consensus' folder, beside WEIGHTS
INDEX = f"{WEIGHTS}.index.json"
REFERENCE = "reference.json"  # of a frozen agent's folder, which holds no weights
DRAFT = ".part"  # how the name of a file ends that is not whole yet
LONE = "backslashreplace"  # lone surrogates, which UTF-8 has no bytes for: as JSON writes them
_UNFOUND = {
    errno.ELOOP: "is a cycle of links",
    errno.ENOTDIR: "is below a file, not a folder",
    errno.EACCES: "cannot be reached: permission denied",
    errno.ENAMETOOLONG: "is no path: it is too long",
}
REMEDIES = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space within this user's quota",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EROFS: "make this disk writable",
    errno.EACCES: "give the right to write there",
    errno.EPERM: "give the right to write there",
    errno.EIO: "check this disk: it reports errors",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files",
    errno.ESTALE: "mount this disk again",
}
"""What to do about a file that cannot be written."""
_RIGHTS = (errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what only writing meets
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # of file systems that know no syncing of folders


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a new path in the folder of ``path``; what is written there takes its place once the block has ended.

    The content is synced before the rename, and the folder after it. Where the block raises, nothing is left behind.
    """
    draft = path.with_name(f".{os.urandom(4).hex()}{DRAFT}")
    try:
        yield draft
        _sync(draft)
        draft.replace(path)
        _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and _of(error) in (None, str(draft), str(path), str(path.parent)):
            raise NotWritten(error.errno, error.strerror or str(error), str(path)) from error
        raise


class NotWritten(OSError):
    """A file could not be written; ``filename`` is its own name, not that of its draft."""


def write(path: Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, whole or not at all. OSError where that is not possible."""
    with aside(path) as draft:
        draft.write_bytes(content.encode("utf-8", LONE) if isinstance(content, str) else content)


def write_json(path: Path, value: Any, indent: int = 2) -> None:
    """Write a value as :func:`to_json` gives it, whole or not at all."""
    write(path, to_json(value, indent) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None where there is none that is whole."""
    try:
        found = json.loads(read(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read(path: Path, errors: str = "strict", most: int | None = None) -> str:
    """A file's text, as UTF-8, of at most so many bytes.

    OSError where it is larger, or no file, as a named pipe, which would be waited for.
    """
    with opened(path) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise OSError(errno.EFBIG, f"holds more than {most >> 20} MiB", str(path))
    return content.decode("utf-8", errors)


def opened(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes. OSError, in words, for whatever else is there."""
    if (what := found_at(path)) not in ("file", "folder") and path.exists():
        raise OSError(errno.EINVAL, f"{what}, not a file", str(path))
    return path.open("rb")


def found_at(path: str | Path) -> str:
    """What stands at a path: ``file``, ``folder``, or in words what else, or why nothing is found."""
    text = os.fspath(path)
    if not text or "\0" in text:
        return "is no path: it has a zero byte in it" if text else "is no path: it is empty"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG) and os.path.islink(path):
            return f"is a link to {os.readlink(path)!r}, which does not exist"
        return _UNFOUND.get(error.errno or 0, "does not exist")
    except ValueError:  # a lone surrogate
        return "is no path: it has a character that no file's name has"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return "file" if stat.S_ISREG(mode) else "folder"
    return "is a named pipe" if stat.S_ISFIFO(mode) else "is a socket" if stat.S_ISSOCK(mode) else "is a device"


def refuse_path(path: Path, where: str) -> None:
    """MeshError where no file can be written to a path that ``where``, an option say, names."""
    what = found_at(path)
    if what.startswith("is no path") or what == "folder":
        what = "is a folder" if what == "folder" else what
        raise MeshError(what, file=str(path), where=where, instead="the path of a file")
    if found_at(path.parent) != "folder":
        raise MeshError(f"there is no folder {str(path.parent)!r}", where=where, instead="a folder that is there")


def reason(error: BaseException) -> str:
    """What an error says, without its number: of the system, the file and why."""
    if not isinstance(error, OSError) or error.errno is None:
        return next(iter(str(error).splitlines()), "") or type(error).__name__
    why = error.strerror or os.strerror(error.errno)
    return f"{os.fsdecode(error.filename)}: {why}" if isinstance(error.filename, str | bytes | os.PathLike) else why


def remedy(error: BaseException, writes: bool = True) -> str:
    """What to do about an error of the system while a file is written, or read; nothing for one of another kind."""
    number = _number(error)
    return "give the right to it" if not writes and number in _RIGHTS else REMEDIES.get(number, "")


def writing(error: BaseException) -> bool:
    """Whether an error of the system came as something was written: of :func:`aside`, or of a kind that only writing
    meets, or of a library in another language that says so.
    """
    if isinstance(error, OSError):
        return isinstance(error, NotWritten) or error.errno in _FULL
    return _number(error) in _FULL or re.search(r"(?<!de)serializ", str(error)) is not None


def place(error: BaseException) -> str:
    """Where in the code an error came up, but for these helpers and what is installed: `in load (checkpoint.py, 9)`."""
    import sysconfig  # needed where something failed: kept out of the way of `--help`
    from traceback import extract_tb

    installed = tuple({*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))})
    frames = extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    own = [
        one
        for one in frames
        if one.filename != __file__ and (one.filename.startswith(ours) or not one.filename.startswith(installed))
    ] or frames
    return f"in {own[-1].name} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else "on the way"


def _number(error: BaseException) -> int:
    """An error's number, 0 without one. Libraries in other languages tell of it in words: `(os error 28)`."""
    number = error.errno if isinstance(error, OSError) else None
    found = re.search(r"\(os error (\d+)\)", str(error)) if number is None else None
    return int(found[1]) if found else number or 0


def _of(error: OSError) -> str | None:
    name = error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None


def write_all(root: Path, files: Mapping[str, bytes | None]) -> None:
    """Write into a folder, which is made, what has content. MeshError for a name that leads outside of it."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if content is not None:
            path = inside(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, content)


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with opened(path) as file:
        import hashlib

        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(file: IO[Any]) -> bool:
    """Lock an open file for this process, until it is closed or the process dies; whether that was possible.

    A file system, or a system, that knows no locks counts as having none.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (*_NO_SYNC, errno.ENOLCK, errno.ENOSYS):
            raise
    return True


def locked(path: Path) -> bool:
    """Whether a process has locked the file there; not where there is none, or no locks are known.

    Nothing is written. To see it the lock is shared for a moment: who is refused it then should ask once more.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with suppress(OSError), opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that any reader takes: numbers that are not finite are null. Other kinds of values as :func:`plain` says."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Return ``value`` as what JSON can hold: keys are text, and NaN and the infinities are None.

    Arrays become lists, their scalars numbers, and paths text.
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def inside(root: Path, *names: str) -> Path:
    """Return the path below ``root`` that the names make. MeshError where it, or what it links to, is outside.

    A name may be a relative path of its own, as ``adapter/config.json``.
    """
    path = root.joinpath(*names)
    parts = [part for name in names for part in PurePath(name).parts]
    plainly = (
        all(name and "\0" not in name and not PurePath(name).is_absolute() for name in names) and ".." not in parts
    )
    home = root.resolve()
    if plainly and _below(path, home) and path.resolve() != home:
        return path
    raise MeshError(f"{'/'.join(names)!r} leads outside of this folder", file=str(root), instead="a plain name")


def link_outside(root: Path, home: Path | None = None) -> Path | None:
    """A link below a folder that leads out of it, or out of ``home``; None where there is none."""
    home = (home or root).resolve()
    for parent, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.is_symlink() and not _below(path, home):
                return path
    return None


def _below(path: Path, home: Path) -> bool:
    try:
        return path.resolve().is_relative_to(home)
    except (OSError, RuntimeError):  # a circle of links
        return False


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, where the file system can."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(number)
    except OSError as error:
        if path.is_file() or error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(number)
