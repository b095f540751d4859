"""A training run as data: TOML, checked by pydantic before anything is read or trained.

An unknown key or a bad value ends here as one RecipeError that names the key and what is allowed.
"""

from __future__ import annotations

import json
import tomllib
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from fastlstm.errors import RecipeError
from fastlstm.train.recipe_layers import LAYERS, AtLeast0, AtLeast1, LayerTable, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Columns = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(strict=False, min_length=1),
]


class Split(Table):
    """The fractions of the series, in the order of time, that each part gets; they add up to 1."""

    train: Fraction = 0.7
    validation: Fraction = 0.15
    test: Fraction = 0.15

    @model_validator(mode="after")
    def _adds_up(self) -> Split:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"train, validation and test must add up to 1, these add up to {total:.6g}"
            )
        return self


class Generator(Table):
    """A series made on the spot: a sum of two sines, or the Mackey-Glass equation."""

    kind: Literal["sine", "mackey_glass"]
    samples: Annotated[int, Field(ge=10)] = 2000
    noise: NotNegative = 0.0
    seed: AtLeast0 = 0


class SeriesTable(Table):
    """Where the series comes from, which columns are read, and how it is split and scaled."""

    path: str | None = None
    generator: Generator | None = None
    format: Literal["csv", "parquet", "npy", "npz"] | None = None
    input: Columns | None = None
    target: Columns | None = None
    time: str | None = None
    name: str | None = None
    unit: str | None = None
    scaling: Literal["standard", "none"] = "standard"
    split: Split = Split()

    @model_validator(mode="after")
    def _one_source(self) -> SeriesTable:
        if (self.path is None) == (self.generator is None):
            found = "neither" if self.path is None else "both"
            raise ValueError(f"expected one of path and generator, found {found}")
        return self


class Windows(Table):
    """How the training part is cut: at every step of a window the network predicts `horizon` ahead.

    The first `warm_up` steps of a window carry no loss: there the state is still settling.
    """

    length: AtLeast1
    horizon: AtLeast1 = 1
    stride: AtLeast1 = 1
    warm_up: AtLeast0 = 0

    @model_validator(mode="after")
    def _leaves_something(self) -> Windows:
        if self.warm_up >= self.length:
            raise ValueError(
                f"warm_up must be less than length, found {self.warm_up} and {self.length}"
            )
        return self


class NetworkTable(Table):
    """The layers between the scalings, in order; the last one puts out the target columns."""

    layers: tuple[LayerTable, ...] = Field(strict=False, min_length=1)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    learned_initial_state: bool = False


class Optimiser(Table):
    """How the weights move."""

    name: Literal["adam", "adamw", "nadam", "rmsprop", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine"] = "constant"


class Training(Table):
    """How long, in what portions, and when to stop. `gradient_clip` 0 clips nothing.

    `level_shift` moves each training window, inputs and targets alike, up or down by a random
    amount of at most so many deviations: a network learns then to follow a series beyond the
    levels that it was trained on. Only for series that predict their own inputs.
    """

    max_epochs: AtLeast1 = 100
    batch_size: AtLeast1 = 32
    patience: AtLeast1 = 20
    gradient_clip: NotNegative = 1.0
    level_shift: NotNegative = 0.0
    loss: Literal["mse", "mae", "huber"] = "mse"
    # Lightning's bound; and past some thousands of threads torch ends the process.
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"


class Recipe(Table):
    """One training run, whole: the same recipe and series give the same model."""

    name: str
    series: SeriesTable
    windows: Windows
    network: NetworkTable
    optimiser: Optimiser = Optimiser()
    training: Training = Training()


_TABLES: dict[str, type[Table]] = {
    "series": SeriesTable,
    "series.generator": Generator,
    "series.split": Split,
    "windows": Windows,
    "network": NetworkTable,
    "optimiser": Optimiser,
    "training": Training,
}
# pydantic's own words where they speak of Python rather than of TOML.
_WANTED = {
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected a string",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "too_short": "expected at least one entry",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
}


def ready_recipes() -> list[str]:
    """The names of the recipes that come with fastlstm."""
    folder = resources.files("fastlstm.train.recipes")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load_recipe(
    name_or_path: str | Path,
    data: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """Read a ready recipe by its name, a TOML file, or the recipe of a run folder.

    `data` is a file to read instead of the recipe's series. `overrides` maps dotted keys to values,
    such as {"training.max_epochs": 5}. Raises RecipeError, which names the key at fault.
    """
    path = _find(name_or_path)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    document.setdefault("name", path.stem)
    series = document.get("series")
    if isinstance(series, dict):
        if data is not None:
            # The other file's format is its own; its columns are still the recipe's.
            foreign = {"generator", "format"}
            if "generator" in series:
                foreign |= {"name", "unit"}
            series = {key: value for key, value in series.items() if key not in foreign}
            document["series"] = {**series, "path": str(Path(data).absolute())}
        elif isinstance(series.get("path"), str):
            series["path"] = str((path.parent / series["path"]).resolve())
    for key, value in (overrides or {}).items():
        _override(document, key, value)
    return parse_recipe(document, str(path))


def parse_recipe(document: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Check a recipe given as plain data; `source` begins the message of a RecipeError."""
    try:
        return Recipe.model_validate(dict(document))
    except ValidationError as error:
        faults = error.errors()
        # A list with a bad entry is also reported as too short: only the innermost fault helps.
        inner = [f for f in faults if not any(_holds(f["loc"], other["loc"]) for other in faults)]
        raise RecipeError(f"{source}: {'; '.join(map(_fault, inner))}") from None


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML with every default written out; load_recipe reads it back equal."""
    document = recipe.model_dump(mode="json", exclude_none=True)
    lines = [f"name = {_value(document.pop('name'))}"]
    for section, table in document.items():
        lines += ["", f"[{section}]"]
        lines += [f"{key} = {_value(value)}" for key, value in table.items()]
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
            f"{_hint(str(name_or_path), ready)}; the ready ones are {', '.join(ready)}"
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


def _fault(fault: Any) -> str:
    """One of pydantic's complaints as: the dotted key, what was found, what is allowed."""
    where = [part for k, part in enumerate(fault["loc"]) if not _is_tag(fault["loc"], k)]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where).lstrip(".")
    if fault["type"] == "extra_forbidden":
        allowed = list(_table_at(fault["loc"][:-1]).model_fields)
        hint = _hint(where[-1], allowed) or _home(where[-1])
        return f"unknown key {key}{hint}; allowed here: {', '.join(allowed)}"
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
        return f"{key}: {fault['ctx']['error']}"
    wanted = _WANTED.get(fault["type"], fault["msg"].replace("Input should be", "expected"))
    return f"{key}: {wanted}, found {_short(fault['input'])}"


def _holds(outer: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _is_tag(location: tuple[Any, ...], k: int) -> bool:
    """Whether this is a layer's kind: pydantic puts it into the path, though no key is so named."""
    return k > 0 and isinstance(location[k - 1], int) and location[k] in LAYERS


def _home(key: Any) -> str:
    """Where a key that stands in the wrong table belongs."""
    homes = [name for name, table in _TABLES.items() if key in table.model_fields]
    return f" (it belongs in [{homes[0]}])" if homes else ""


def _choice(key: str, found: Any, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    return (
        f"{key}: expected one of {', '.join(allowed)}, found {_short(found)}{_hint(found, allowed)}"
    )


def _hint(found: Any, allowed: Iterable[str]) -> str:
    by_lower = {name.lower(): name for name in allowed}
    close = get_close_matches(str(found).lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _table_at(location: tuple[Any, ...]) -> type[Table]:
    """The table that the path of a complaint leads into."""
    if not location:
        return Recipe
    if _is_tag(location, len(location) - 1):
        return LAYERS[location[-1]]
    return _TABLES[".".join(location)]


def _value(value: Any) -> str:
    """One value as TOML: tables and lists inline, strings escaped as JSON escapes them."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # DEL is the one character that JSON leaves bare and TOML forbids.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
