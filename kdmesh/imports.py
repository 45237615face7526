"""Code that a file names, ``package.module:Thing``: where it is, what of it is called, and what it is made of.

A mesh that names such a path is a program. Before a module of one's own is imported its source is read: a thing that
nothing there defines as a class, or as a function that says what it returns, is refused without running anything.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
import typing
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def import_path(path: str, where: str) -> Any:
    """Resolve ``package.module:Thing``."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MeshError(f"cannot import {path!r}: {error}", where=where, instead="package.module:Thing") from None


def maker(
    path: str,
    where: str,
    kinds: tuple[type, ...],
    what: str,
    also: Callable[[type], bool] = lambda found: False,
    instead: str = "",
) -> Any:
    """Resolve a path that a file names to what may be called: a class of ``kinds``, or a function annotated so.

    ``what`` names the kinds in messages; ``also`` takes further classes. MeshError for anything else.
    """
    module, _, attribute = path.partition(":")
    refused = MeshError(
        f"{path} is no {what} class, and no function that says by its annotation that it returns one",
        where=where,
        instead=instead or f"such a class, or `def {attribute or 'make'}(...) -> {what}:`",
    )
    file = own_source(module)
    if file is not None and not _promises(file, attribute):
        if missing := _missing(file, attribute):
            raise MeshError(f"{path}: {missing[0]}", where=where, instead=missing[1])
        raise refused
    found = import_path(path, where)
    if not (makes(found, kinds) or (isinstance(found, type) and also(found))):
        raise refused
    return found


def makes(found: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a thing is a class of one of some kinds, or a function whose annotation says that it returns one."""
    if isinstance(found, type):
        return issubclass(found, kinds)
    if not inspect.isfunction(found):
        return False
    try:
        returned = typing.get_type_hints(found).get("return")
    except Exception:  # annotations that cannot be resolved say nothing
        return False
    returned = typing.get_origin(returned) or returned
    return isinstance(returned, type) and issubclass(returned, kinds)


def own_source(module: str) -> Path | None:
    """The source of a module that is not installed but lies in a folder that is searched; nothing is imported.

    None also where it comes from no file here: code that another machine sent was read there.
    """
    loaded = sys.modules.get(module)
    try:
        spec = _found(module) if loaded is None else loaded.__spec__
        if spec is None or spec.origin is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        file = Path(spec.origin).resolve()
    except (ValueError, OSError):
        return None
    return file if file.suffix == ".py" and not _is_installed(file) else None


def _found(module: str) -> ModuleSpec | None:
    """What would be imported as a module."""
    search, spec, parts = None, None, module.split(".")
    for number in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:number]), search)
        search = None if spec is None else spec.submodule_search_locations
        if spec is None or (search is None and number < len(parts)):
            return None
    return spec


def _spec(module: str, search: Any) -> ModuleSpec | None:
    """What the first finder that knows a module says of it; ``search``: the folders of its package."""
    return next((spec for finder in sys.meta_path if (spec := finder.find_spec(module, search)) is not None), None)


def _is_installed(file: Path) -> bool:
    package = Path(__file__).resolve().parent
    return any(map(file.is_relative_to, (*_INSTALLED, package))) or not {"site-packages", "dist-packages"}.isdisjoint(
        file.parts
    )


def _promises(file: Path, attribute: str) -> bool:
    """Whether a source defines the attribute as something that may be called, or has it from elsewhere."""
    for node in ast.walk(_parsed(file)):
        match node:
            case ast.ClassDef(name=name, bases=bases) if name == attribute:
                return bool(bases) or any(getattr(line, "name", "") == "__getitem__" for line in node.body)
            case ast.FunctionDef(name=name, returns=returns) if name == attribute:
                return returns is not None
            case ast.ImportFrom(names=names) if any(
                (alias.asname or alias.name) in (attribute, "*") for alias in names
            ):
                return True
            case ast.Assign(targets=targets, value=ast.Name() | ast.Attribute()):
                if any(isinstance(target, ast.Name) and target.id == attribute for target in targets):
                    return True
    return False


def _missing(file: Path, attribute: str) -> tuple[str, str] | None:
    """What is wrong and what to write, where a source cannot be read, or defines nothing of this name."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, ValueError, SyntaxError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"{file.name}{line} cannot be read: {getattr(error, 'msg', error)}", "Python that can be imported"
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    if attribute in (*names, *(node.id for node in nodes if isinstance(node, ast.Name))):
        return None
    return f"{file.name} defines no {attribute!r}", nearest(attribute, names, "functions and classes")


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return ast.Module([], [])


def sources(module: str) -> dict[str, str]:
    """What a named module is made of: the sum of each source of one's own, itself and what it imports, by module.

    An installed one counts by its distribution's version.
    """
    found: dict[str, str] = {}
    waiting = [module]
    for name in waiting:  # grows while it is read
        file = own_source(name)
        if name in found or (file is None and name != module):
            continue
        if file is None:
            found[name] = _version(name)
            continue
        found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        parents = name.split(".")
        waiting += [".".join(parents[:number]) for number in range(1, len(parents))]
        waiting += _imported(file, name)
    return dict(sorted(found.items()))


def _imported(file: Path, module: str) -> Iterator[str]:
    """The modules that a source may import."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*home, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _version(module: str) -> str:
    top = module.partition(".")[0]
    try:
        dist = packages_distributions().get(top, [top])[0]
        return f"{dist} {version(dist)}"
    except PackageNotFoundError:
        return f"python {sys.version_info.major}.{sys.version_info.minor}" if top in sys.stdlib_module_names else "?"
