"""Classes that are built in anyone's own loop refuse the settings that a mesh file would be refused for."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from kdmesh.errors import MeshError
from kdmesh.spec.explain import explain
from kdmesh.spec.numbers import refuse_odd_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

Class = TypeVar("Class", bound=type)


def checked_by(config: type[BaseModel]) -> Callable[[Class], Class]:
    """Decorate a class whose ``__init__`` takes the fields of ``config``: it gets them as ``config`` reads them.

    What ``config`` refuses is a :class:`~kdmesh.errors.MeshError` that names the class and the setting. Parameters that
    ``config`` does not have are passed on as they are. Numbers and arrays of numpy and torch are read as Python's.
    """

    def decorate(kind: Class) -> Class:
        build: Any = kind.__init__  # type: ignore[misc]
        signature = inspect.signature(build)

        @functools.wraps(build)
        def __init__(self: Any, *args: Any, **fields: Any) -> None:
            call = signature.bind(self, *args, **fields)
            call.apply_defaults()
            own = {name: _plain(value) for name, value in call.arguments.items() if name in config.model_fields}
            for name, value in own.items():
                if not isinstance(value, (bool, int, float, str, list, tuple, dict, type(None))):
                    what = f"found an object, {type(value).__name__}"
                    raise MeshError(what, where=f"{type(self).__name__}.{name}", instead="a plain value")
            refuse_odd_values(own, config, where=type(self).__name__)
            try:
                found = config.model_validate(own)
            except ValidationError as error:
                raise explain(error, config, where=type(self).__name__, data=own) from None
            call.arguments.update({name: getattr(found, name) for name in own})
            build(*call.args, **call.kwargs)

        kind.__init__ = __init__  # type: ignore[misc]
        return kind

    return decorate


def _plain(value: Any) -> Any:
    """A number or an array as numbers of Python; what a gradient shall reach, and anything else, as it is."""
    listed = getattr(value, "tolist", None)
    return value if listed is None or getattr(value, "requires_grad", False) else listed()
