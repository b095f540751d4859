"""A training run as data: TOML, checked by pydantic before anything is read or trained.

An unknown key or a bad value ends here as one RecipeError that names the key and what is allowed.
"""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fastlstm.errors import RecipeError
from fastlstm.train.recipe_faults import explain, hint
from fastlstm.train.recipe_tables import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping


def ready_recipes() -> list[str]:
    """The names of the recipes that come with fastlstm."""
    folder = resources.files("fastlstm.train.recipes")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def about(name: str) -> str:
    """What a ready recipe is for: the first line of its file."""
    text = (resources.files("fastlstm.train.recipes") / f"{name}.toml").read_text("utf-8")
    return text.splitlines()[0].lstrip("# ")


def load_recipe(
    name_or_path: str | Path,
    data: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """Read a ready recipe by its name, a TOML file, or the recipe of a run folder.

    `data` is a file to read instead of the recipe's series. `overrides` maps dotted keys to values,
    such as {"training.max_epochs": 5}. What a variant itself says stands above both. Raises
    RecipeError, which names the key at fault.
    """
    path = _find(name_or_path)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    document.setdefault("name", path.stem)
    _make_paths_absolute(document, path.parent)
    series = document.get("series")
    if data is not None and isinstance(series, dict):
        # The other file's format is its own; its columns are still the recipe's.
        foreign = {"generator", "format"}
        if "generator" in series:
            foreign |= {"name", "unit"}
        series = {key: value for key, value in series.items() if key not in foreign}
        document["series"] = {**series, "path": str(Path(data).absolute())}
    for key, value in (overrides or {}).items():
        _override(document, key, value)
    # What is still relative was given here, not in the file.
    _make_paths_absolute(document, Path.cwd())
    return parse_recipe(document, str(path))


def _make_paths_absolute(document: dict[str, Any], folder: Path) -> None:
    """The files that a recipe and its variants read, from relative to `folder` to absolute."""
    variants = document.get("variants")
    tables = [document, *(variants.values() if isinstance(variants, dict) else ())]
    for table in tables:
        series = table.get("series") if isinstance(table, dict) else None
        if isinstance(series, dict) and isinstance(path := series.get("path"), str):
            series["path"] = path if Path(path).is_absolute() else str((folder / path).resolve())


def parse_recipe(document: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Check a recipe given as plain data, its variants too.

    `source` begins the message of a RecipeError.
    """
    try:
        recipe = Recipe.model_validate(dict(document))
    except ValidationError as error:
        raise RecipeError(f"{source}: {explain(error)}") from None
    # Now, so that no typo waits until the first variants have been trained.
    for name in recipe.variants:
        _variant(recipe, name, source)
    return recipe


def variant_of(recipe: Recipe, name: str) -> Recipe:
    """The recipe with the changes of one of its variants; raises RecipeError where it has none."""
    if name not in recipe.variants:
        known = ", ".join(recipe.variants) or "none"
        raise RecipeError(
            f"{recipe.name}: no variant {name}{hint(name, recipe.variants)}; it has {known}"
        )
    return _variant(recipe, name, recipe.name)


def _variant(recipe: Recipe, name: str, source: str) -> Recipe:
    changes = recipe.variants[name]
    exclude: dict[str, Any] = {"variants": True, "evaluation": {"best_by"}}
    document = recipe.model_dump(mode="json", exclude_none=True, exclude=exclude)
    document["name"] = f"{recipe.name}-{name}"
    source_changes = changes.get("series")
    if isinstance(source_changes, dict):
        # A series has one source: naming another one is to leave the recipe's own.
        leave = [key for key in ("path", "generator") if key not in source_changes]
        if len(leave) == 1:
            for key in (*leave, *(_OF_FILES if "generator" in source_changes else ())):
                document["series"].pop(key, None)
    return parse_recipe(_merged(document, changes), f"{source}: variant {name}")


_OF_FILES = ("format", "layout", "sequence", "time")


def _merged(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The document with every key of `changes` in its place, table by table."""
    merged = dict(document)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        merged[key] = value
    return merged


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every default written out; load_recipe reads it back equal."""
    document = recipe.model_dump(mode="json", exclude_none=True)
    lines = [f"name = {_value(document.pop('name'))}"]
    for section, table in document.items():
        if table:
            lines += ["", f"[{section}]"]
        lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _find(name_or_path: str | Path) -> Path:
    """The file that a ready recipe's name, a path or a run folder means."""
    ready = ready_recipes()
    path = Path(name_or_path)
    if str(name_or_path) in ready:
        return Path(str(resources.files("fastlstm.train.recipes") / f"{name_or_path}.toml"))
    if path.is_dir():
        path /= "recipe.toml"
    if not path.is_file():
        raise RecipeError(
            f"{name_or_path}: no such recipe file, and no ready recipe of this name"
            f"{hint(str(name_or_path), ready)}; the ready ones are {', '.join(ready)}"
        )
    return path


def _override(document: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    table: Any = document
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"override {key}: {section} is no table in this recipe")
    table[last] = value


def _key(name: str) -> str:
    """A key as TOML writes it: in quotes unless it is plain."""
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else _value(name)


def _value(value: Any) -> str:
    """One value as TOML: tables and lists inline, strings escaped as JSON escapes them."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # DEL is the one character that JSON leaves bare and TOML forbids.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
