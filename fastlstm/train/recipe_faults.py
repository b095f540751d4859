"""What is wrong with a recipe, in the words of TOML: the key, what was found, what is allowed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from fastlstm.train.recipe_layers import LAYERS, Table
from fastlstm.train.recipe_tables import TABLES, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import ValidationError

# pydantic's own words where they speak of Python rather than of TOML.
_WANTED = {
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected a string",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "too_short": "expected at least one entry",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
}


def explain(error: ValidationError) -> str:
    """All complaints of pydantic in one line."""
    faults = error.errors()
    # A list with a bad entry is also reported as too short: only the innermost fault helps.
    inner = [f for f in faults if not any(_holds(f["loc"], other["loc"]) for other in faults)]
    return "; ".join(map(_fault, inner))


def hint(found: Any, allowed: Iterable[str]) -> str:
    """A question that ends a message where one of `allowed` is close to what was found."""
    by_lower = {name.lower(): name for name in allowed}
    close = get_close_matches(str(found).lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""


def _fault(fault: Any) -> str:
    """One of pydantic's complaints as: the dotted key, what was found, what is allowed."""
    where = [part for k, part in enumerate(fault["loc"]) if not _is_tag(fault["loc"], k)]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where).lstrip(".")
    if fault["type"] == "extra_forbidden":
        allowed = list(_table_at(fault["loc"][:-1]).model_fields)
        meant = hint(where[-1], allowed) or _home(where[-1])
        return f"unknown key {key}{meant}; allowed here: {', '.join(allowed)}"
    if fault["type"] == "missing":
        return f"{key} is missing; it has no default, so write it into the recipe"
    if fault["type"].startswith("union_tag"):
        found = fault["input"].get("kind") if isinstance(fault["input"], dict) else fault["input"]
        return _choice(f"{key}.kind", found, LAYERS)
    if fault["type"] == "literal_error":
        allowed = [
            part.strip("'") for part in fault["ctx"]["expected"].replace(" or ", ", ").split(", ")
        ]
        return _choice(key, fault["input"], allowed)
    if fault["type"] == "value_error":
        # What tables forbid one another names its keys itself.
        return f"{key}: {fault['ctx']['error']}" if key else str(fault["ctx"]["error"])
    wanted = _WANTED.get(fault["type"], fault["msg"].replace("Input should be", "expected"))
    return f"{key}: {wanted}, found {_short(fault['input'])}"


def _holds(outer: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _is_tag(location: tuple[Any, ...], k: int) -> bool:
    """Whether this is a layer's kind: pydantic puts it into the path, though no key is so named."""
    return k > 0 and isinstance(location[k - 1], int) and location[k] in LAYERS


def _home(key: Any) -> str:
    """Where a key that stands in the wrong table belongs."""
    homes = [name for name, table in TABLES.items() if key in table.model_fields]
    return f" (it belongs in [{homes[0]}])" if homes else ""


def _choice(key: str, found: Any, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    return (
        f"{key}: expected one of {', '.join(allowed)}, found {_short(found)}{hint(found, allowed)}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _table_at(location: tuple[Any, ...]) -> type[Table]:
    """The table that the path of a complaint leads into."""
    if not location:
        return Recipe
    if _is_tag(location, len(location) - 1):
        return LAYERS[location[-1]]
    return TABLES[".".join(location)]
