"""How every command of `fastlstm` answers: tables, progress, one line for an error, JSON files."""

from __future__ import annotations

import errno
import json
import math
import os
from contextlib import contextmanager
from time import monotonic as time_now
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Between two lines of progress in a log.
QUIET_SECONDS = 2.0


def complain(message: str) -> None:
    """One line on standard error, whatever the message holds."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)


def console(*, stderr: bool = False) -> Console:
    """A rich console that keeps whole tables where the output is a file or a pipe."""
    wide = Console(stderr=stderr)
    return wide if wide.is_terminal else Console(stderr=stderr, width=160)


@contextmanager
def telling(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner naming what runs now; where standard error is no terminal, a line now and then."""
    errors = console(stderr=True)
    if errors.is_terminal:
        with errors.status(title) as status:
            yield lambda name: status.update(f"{title}: {name}")
        return
    last = -math.inf

    def tell(name: str) -> None:
        nonlocal last
        if time_now() - last >= QUIET_SECONDS:
            last = time_now()
            typer.echo(f"{title}: {name}", err=True)

    yield tell


def room_for(*paths: Path | None) -> None:
    """Make the folders for the results now: what cannot be written fails before the work."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures where a --json option says, if it says so, and tell the user."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
        typer.echo(f"wrote {path}")
