"""The JSON Schema of a configuration file, so that editors complete, explain and check what is typed.

`python -m configs.json_schema` refreshes configs/schema.json, which every YAML names in its first lines.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs import data, schema, section, stages
from configs.fields import STAGE_CLASSES
from configs.schema import RESERVED_STAGE_NAMES, STAGE_PATTERN, Config
from configs.sweeps import SWEEP

FILE = Path(__file__).with_name("schema.json")
REFRESH = "python -m configs.json_schema"
_SWEEP = {
    "type": "object",
    "description": "One stage per combination of these values, such as {seed: [1, 2, 3]} or {lr: [2e-5, 3e-5]}: keys of the "
    "stage, dotted where they stand in a section (data.fold, truncation.head).",
    "minProperties": 1,
    "additionalProperties": {"type": ["array", "object"], "minItems": 1},
}


def render() -> str:
    """The text of configs/schema.json."""
    result = Config.model_json_schema()
    for owner, key, text in _docstrings():
        for definition in _heirs(result, owner):
            if key in definition["properties"]:
                definition["properties"][key].setdefault("description", text)
    _optional_task(result)
    for stage in STAGE_CLASSES.values():
        result["$defs"][stage.__name__]["properties"][SWEEP] = _SWEEP
    result = {"$schema": "http://json-schema.org/draft-07/schema#", **_without_titles(result)}
    result["title"] = "A run of the BERT4Doc launcher"
    return json.dumps(result, indent=2, ensure_ascii=False) + "\n"


def _docstrings() -> Iterator[tuple[str, str, str]]:
    """The line under each field of the schema's classes: (class, field, text). pydantic could collect them
    itself, but reads source files for it, and that would slow down every command."""
    sources = [inspect.getsource(module) for module in (section, data, stages, schema)]
    classes = [node for source in sources for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    for node in classes:
        for field, doc in itertools.pairwise(node.body):
            match field, doc:
                case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                    yield node.name, key, " ".join(text.split())


def _heirs(result: dict[str, Any], owner: str) -> Iterator[dict[str, Any]]:
    """The definitions of a class and of the classes derived from it."""
    base = getattr(schema, owner)
    for name, definition in {**result["$defs"], Config.__name__: result}.items():
        if issubclass(getattr(schema, name), base):
            yield definition


def _optional_task(result: dict[str, Any]) -> None:
    """A stage that is named after a task needs no `task`."""
    stages = result["properties"]["stages"]
    stages.pop("patternProperties")
    classes = {task: stage.__name__ for task, stage in STAGE_CLASSES.items()}
    either = {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in classes.values()]}
    stages["properties"] = {}
    for task, name in classes.items():
        result["$defs"][name]["required"].remove("task")
        stages["properties"][task] = {
            "if": {"required": ["task"]},
            "then": either,
            "else": {"$ref": f"#/$defs/{name}"},
        }
    stages["propertyNames"] = {"pattern": STAGE_PATTERN, "not": {"enum": list(RESERVED_STAGE_NAMES)}}
    stages["additionalProperties"] = {"required": ["task"], **either}


def _without_titles(node: Any) -> Any:
    """pydantic's titles repeat the keys; editors show the descriptions instead."""
    if isinstance(node, dict):
        return {key: _without_titles(item) for key, item in node.items() if key != "title" or isinstance(item, dict)}
    return [_without_titles(item) for item in node] if isinstance(node, list) else node


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
    print(f"{FILE.name} is current")
