"""`fastlstm stream`: samples or sequences from standard input, a line each, answered at once."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import numpy as np

from fastlstm.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fastlstm.model import Model
    from fastlstm.stream import Stream


def takes_sequences(model: Model) -> bool:
    """Whether a model was trained on whole sequences of one column, to answer at their ends."""
    known = model.metadata
    return known.get("window") == 0 and known.get("loss_at") == "last" and model.input_size == 1


def relay(stream: Stream, complain: Callable[[str], None], *, sequences: bool = False) -> int:
    """Answer every line of standard input; return how many were bad and left out.

    A line is one sample or, of `sequences`, a whole one; raises InputError where the model reads
    more than one column and so cannot take a sequence in a line.
    """
    size = stream.model.input_size
    if sequences and size != 1:
        raise InputError(
            f"stream: --sequences takes lines such as 3,5,7 for a model that reads one column; "
            f"this one reads {size}: use --samples"
        )
    for name, file in (("input", sys.stdin), ("output", sys.stdout)):
        if file is None:
            raise InputError(f"stream: standard {name} is closed")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Bytes that are no UTF-8 make one bad line, not the end of the stream.
        sys.stdin.reconfigure(errors="backslashreplace")
    if sys.stdin.isatty():
        wanted = "one number" if size == 1 else f"{size} numbers"
        if sequences:
            wanted = "a sequence such as 3,5,7 on"
        sys.stderr.write(f"Type {wanted} a line; end with Ctrl-D.\n")
    bad = 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if number == 1:
            # What some programs put before a text in UTF-8.
            line = line.removeprefix("\ufeff")
        try:
            if sequences:
                values = _values(_words(line))
                stream.reset()
                y = stream.run(values)[-1]
            else:
                y = stream.step(_sample(line, size))
        except InputError as error:
            complain(f"line {number}: {error}; this line is left out and the stream goes on")
            bad += 1
            continue
        # Each value as the shortest text that reads back as the same float32.
        sys.stdout.write(",".join(map(str, y)) + "\n")
        sys.stdout.flush()
    return bad


def _sample(line: str, size: int) -> NDArray[np.float64]:
    """The numbers of one line: (size,) float64, for the stream to judge and to round."""
    words = _words(line)
    if len(words) != size:
        raise InputError(f"expected {size} number{'s' * (size != 1)}, found {len(words)}")
    return _values(words)


def _words(line: str) -> list[str]:
    return line.split(",") if "," in line else line.split()


def _values(words: list[str]) -> NDArray[np.float64]:
    values = []
    for word in words:
        try:
            # float() would take 1_0 for 10.
            values.append(float(word.replace("_", "x")))
        except ValueError:
            found = repr(word.strip()[:40])
            raise InputError(f"expected a number, found {found}") from None
    return np.array(values)
