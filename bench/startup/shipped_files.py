"""The files that programs ship for one model: each format made once, when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlstm import export
from fastlstm.errors import FastLSTMError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastlstm.model import Model

# By format: the end of the file's name, and what writes it.
FORMATS: dict[str, tuple[str, Callable[[Model, Path], object]]] = {
    "safetensors": (".safetensors", lambda model, path: model.save(path)),
    "onnx": (".onnx", export.onnx),
    "torchscript": (".pt", export.torchscript),
    "inductor": (".pt2", export.inductor),
}


class ShippedFiles:
    """One model, in a folder, in the formats that were asked for."""

    def __init__(self, model: Model, folder: Path) -> None:
        """Of `model`; writes nothing yet."""
        self.model, self.folder = model, folder
        self._made: dict[str, tuple[Path | None, str]] = {}

    def file(self, name: str) -> tuple[Path | None, str]:
        """The file of a format, or None and the reason why there is none."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> tuple[Path | None, str]:
        suffix, write = FORMATS[name]
        path = self.folder / f"model{suffix}"
        try:
            write(self.model, path)
        except UnsupportedError as error:
            return None, f"unsupported: {_line(error)}"
        except ImportError as error:
            return None, f"missing: {_line(error)}"
        except FastLSTMError as error:
            return None, f"failed: {_line(error)}"
        return path, ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
