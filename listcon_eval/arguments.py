"""The arguments of public functions, checked against their annotations."""

import functools
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from listcon_eval.errors import ListconError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# By pydantic's type of an error. For `Path`, an empty text would be the current folder.
_EXPECTED = {"sequence_str": "a list", "string_too_short": "a text that is not empty"}
P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse arguments that are not what the annotations say, bounds among them; the function gets them as given.

    A dataclass is annotated as `InstanceOf[...]`, or pydantic would check its fields as well. Without pydantic, which
    `python -m listcon_eval.speed.gpu` does not need, nothing is checked.
    """
    if importlib.util.find_spec("pydantic") is None:
        return function

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        check_arguments(function, inspect.signature(function).bind(*args, **kwargs).arguments)
        return function(*args, **kwargs)

    return wrapped


def check_arguments(function: Callable[..., object], given: Mapping[str, object]) -> None:
    """Raise a ListconError that names the first argument that is not what `function` expects, by its annotations."""
    from pydantic import ValidationError

    for name, adapter in _adapters(function).items():
        try:
            if name in given:
                adapter.validate_python(given[name])
        except ValidationError as error:
            errors = error.errors()
            inner = [found for found in errors if any(isinstance(part, int) for part in found["loc"])]
            place = next((f"[{part}]" for found in inner for part in found["loc"] if isinstance(part, int)), "")
            expected = dict.fromkeys(
                _EXPECTED.get(found["type"], found["msg"].removeprefix("Input should be ")) for found in inner or errors
            )
            raise ListconError(
                f"{function.__qualname__.removesuffix('.__init__')}: {name}{place} is "
                f"{(inner or errors)[0]['input']!r:.80}; expected {' or '.join(expected)}"
            ) from error


@functools.cache
def _adapters(function: Callable[..., object]) -> "dict[str, TypeAdapter[Any]]":
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(strict=True, arbitrary_types_allowed=True, str_min_length=1)
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return {
        parameter.name: TypeAdapter(parameter.annotation, config=config)
        for parameter in parameters
        if parameter.annotation is not parameter.empty
    }
