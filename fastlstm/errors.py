"""The exceptions a user can meet. Each says what was expected, what came and what to do."""

from __future__ import annotations


class FastLSTMError(Exception):
    """Every error that fastlstm raises on purpose; catch this to catch them all."""


class ModelError(FastLSTMError, ValueError):
    """The arrays given for a layer or a Model do not fit together."""


class ModelFileError(FastLSTMError, ValueError):
    """A model file is damaged, incomplete, or of a version that this release cannot read."""


class InputError(FastLSTMError, ValueError):
    """A sample or a block of samples has the wrong size, type or a non-finite value."""


class StreamBusyError(FastLSTMError, RuntimeError):
    """Two threads drove one stream at the same time."""


class SnapshotError(FastLSTMError, ValueError):
    """A snapshot is damaged or was taken from another model."""


class CacheError(FastLSTMError, OSError):
    """Compiled kernels cannot be kept on disk, where that was asked for."""


class ReaderError(FastLSTMError, ValueError):
    """A foreign model holds something that a Model cannot express."""


class ExportError(FastLSTMError, RuntimeError):
    """An exported model does not compute what the reference computes, or could not be written."""


class UnsupportedError(ExportError):
    """A target or a road has no means to express a layer; the message names both."""


class RecipeError(FastLSTMError, ValueError):
    """A training recipe has an unknown key or a value outside what is allowed."""


class SeriesError(FastLSTMError, ValueError):
    """A series cannot be trained on: a missing column, no numbers, or too few of them."""


class MissingExtraError(FastLSTMError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        """Say that `purpose` needs `library`, which `pip install fastlstm[extra]` brings."""
        super().__init__(
            f"{purpose} needs {library}, which is not installed. "
            f"Install it with: pip install 'fastlstm[{extra}]'"
        )
        self.library = library
        self.extra = extra
