"""The frame every document of ours shares: a frozen pydantic model that starts with `schema: wellkit/<kind>/<n>`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wellkit.errors import DocumentError, DocumentVersionError, did_you_mean

_SCHEMA = re.compile(r"wellkit/(?P<kind>[a-z][a-z-]*)/(?P<version>\d+)")


class Model(BaseModel):
    """A part of a document: immutable, and closed (an unknown key is an error, not a silent loss)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)


class Document(Model):
    """A whole document. Subclasses set `KIND` and `VERSION`; files carry them as `schema: wellkit/KIND/VERSION`."""

    KIND: ClassVar[str]
    VERSION: ClassVar[int] = 1

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    schema_: str = Field(alias="schema", description="wellkit/<kind>/<version>; always the first line")

    @classmethod
    def schema_name(cls) -> str:
        """`wellkit/<kind>/<version>` of this class."""
        return f"wellkit/{cls.KIND}/{cls.VERSION}"

    @classmethod
    def parse(cls, content: Any, *, source: str) -> Self:
        """Build the document from parsed YAML or JSON.

        Args:
            content: what the YAML or JSON parser returned.
            source: where it came from, for error messages.

        Raises:
            DocumentVersionError: `schema:` is missing, of another kind, or of a version unknown here.
            DocumentError: a key is unknown or missing, or a value is of the wrong kind; the message names it.
        """
        if not isinstance(content, Mapping):
            raise DocumentError(
                f"{source}: expected a mapping that starts with 'schema: {cls.schema_name()}', "
                f"found {type(content).__name__}"
            )
        declared = content.get("schema")
        if declared != cls.schema_name():
            raise DocumentVersionError(_version_message(cls, declared, source))
        try:
            return cls.model_validate(dict(content))
        except ValidationError as error:
            raise DocumentError(f"{source}: {describe_validation_error(error, cls)}") from error

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON-compatible content, `schema` first, keys that hold nothing left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _version_message(cls: type[Document], declared: object, source: str) -> str:
    wanted = cls.schema_name()
    if declared is None:
        return f"{source}: no 'schema:' line; expected 'schema: {wanted}'"
    match = _SCHEMA.fullmatch(str(declared))
    if match is None or match["kind"] != cls.KIND:
        return f"{source}: schema {declared!r} is not a {cls.KIND}; expected '{wanted}'"
    newer = int(match["version"]) > cls.VERSION
    advice = "a newer wellkit wrote it: upgrade wellkit" if newer else "write it again with this version of wellkit"
    return f"{source}: schema {declared!r} is of a version unknown here (this wellkit reads '{wanted}'); {advice}"


def describe_validation_error(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problems of a pydantic error on one line, unknown keys with their near matches."""
    parts = []
    problems = error.errors(include_url=False, include_context=False)
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    for problem in problems[:3]:
        where = ".".join(str(step) for step in problem["loc"]) or "document"
        if problem["type"] == "extra_forbidden":
            known = _keys_at(model, problem["loc"][:-1])
            parts.append(f"unknown key '{where}'.{did_you_mean(str(problem['loc'][-1]), known)}".rstrip("."))
        elif problem["type"] == "missing":
            parts.append(f"key '{where}' is missing")
        else:
            found = repr(problem["input"])
            parts.append(f"'{where}': {problem['msg']}, found {found if len(found) < 80 else found[:77] + '...'}")
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys allowed at a place inside `model`; empty where the place is not a plain nested model."""
    current: Any = model
    for step in location:
        if isinstance(step, int):
            continue
        fields = getattr(current, "model_fields", {})
        field = fields.get(step) or next((f for f in fields.values() if f.alias == step), None)
        if field is None:
            return []
        current = _model_in(field.annotation)
    return [field.alias or name for name, field in getattr(current, "model_fields", {}).items()]


def _model_in(annotation: Any) -> Any:
    """The first pydantic model mentioned in a type annotation such as `tuple[Axis, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
