"""The JSON Schema of a dataset file, for editors, and the descriptions of its keys."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any, get_args

from pydantic.json_schema import GenerateJsonSchema

from etl.config.base import Section
from etl.config.dataset import Config


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a dataset file as written: with ${VARIABLES}, and single values for lists."""
    schema = Config.model_json_schema(schema_generator=_WithoutTitles)
    by_name = {section.__name__: section for section in sections()}
    for name, object_schema in ((Config.__name__, schema), *schema["$defs"].items()):
        object_schema.pop("title")
        for key, text in descriptions(by_name[name]).items():
            object_schema["properties"][key]["description"] = text
    head = {"$schema": GenerateJsonSchema.schema_dialect, "title": "Speck dataset file"}
    return {**head, **schema, "description": "A dataset with its build, training, evaluation and schedule."}


def sections(section: type[Section] = Config) -> list[type[Section]]:
    """Return a section and all sections below it, outermost first, each once."""
    found = [section]
    for field in section.model_fields.values():
        for part in _sections_in(field.annotation):
            found += sections(part)
    return list(dict.fromkeys(found))


def descriptions(section: type[Section]) -> dict[str, str]:
    """Return the description of each key of a section: the string below it in the code, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }  # fmt: skip


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]
