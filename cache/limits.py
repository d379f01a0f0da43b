"""How large and how odd the values of a stranger may be.

Names (ids, classes, subjects) are only ever shown and compared, but what shows them need not be
ours: so they are plain text, and an id that looks like a way out of a folder is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from cache.errors import Refused

MOST_ROWS = 1 << 31
"""Column `row` is int32."""
_LONGEST_NAME = 4096
_LONGEST_TEXT = 1 << 16
_MOST_CLASSES = 1 << 15
"""Column `label` is int16."""


def _plain(name: str) -> str:
    if not name.isprintable():
        raise ValueError("holds characters that are no plain text")
    return name


Dtype = Literal["uint8", "int16", "int32", "int64", "float16", "float32"]
DTYPES: tuple[str, ...] = get_args(Dtype)
"""Of columns: nothing that holds pointers, and nothing that would have to be unpickled."""
Length = Annotated[int, Field(ge=1, le=1 << 40)]
"""Of an array, along one of its axes."""
Count = Annotated[int, Field(ge=0, le=1 << 62)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Words = Annotated[str, Field(max_length=1000)]
"""For people."""
Digest = Annotated[str, Field(pattern=r"^blake3:[0-9a-f]{64}$")]
ClassNames = Annotated[
    tuple[Annotated[str, Field(max_length=1000), AfterValidator(_plain)], ...],
    Field(max_length=_MOST_CLASSES),
]

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], value: object) -> Model:
    """`value`, parsed from JSON, as a model.

    Raises:
        ValueError: it is none.  The text says where, and repeats nothing of the value: it may
            come from a file that the stranger could not read, but a link of his led to.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ValueError(_first(error, model)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def refuse_classes(names: Sequence[str]) -> None:
    """Raise Refused where a cache cannot have classes of these names."""
    try:
        TypeAdapter(ClassNames).validate_python(names)
    except ValidationError as error:
        what = error.errors(include_context=False)[0]["msg"].removeprefix("Value error, ")
        raise Refused(
            f"A cache cannot have these {len(names)} classes: one of the names, or the number of "
            f"them, is not allowed ({what})."
        ) from None


def _first(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of the mistakes, by the name of the field if it is one of the model's."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        what = "there are fields in it that nobody has asked for"
    return f"{field}: {what}" if field in model.model_fields else what


_NAMES = ("id", "label", "subject", "split", "status")
_TEXTS = ("file", "reason")
_NUMBERS = ("row", "crop")


def check_line(row: dict[str, Any]) -> None:
    """A line of a sample table: what it states has the type and size of what is stated.

    Raises:
        ValueError: it has not; or the id leads out of a folder, or a name is no plain text.
    """
    for key in _NAMES:
        name = row.get(key, "")
        if name is None and key == "split":  # not stated
            continue
        if not isinstance(name, str) or len(name) > _LONGEST_NAME:
            raise ValueError(f"its {key} is no text of at most {_LONGEST_NAME} characters")
        if not name.isprintable():
            raise ValueError(f"its {key} holds characters that are no plain text")
    name = row.get("id", "")
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError("its id leads out of the folder of the data set")
    for key in _TEXTS:
        text = row.get(key, "")
        if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
            raise ValueError(f"its {key} is no text of at most {_LONGEST_TEXT} characters")
    for key in _NUMBERS:
        number = row.get(key, 0)
        if type(number) is not int or not 0 <= number < MOST_ROWS:
            raise ValueError(f"its {key} is no number of a row")
