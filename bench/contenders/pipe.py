"""A contender that is a program of its own, in any language, which times itself.

The protocol is docs/contender-protocol.md; pipe_process.py keeps the process. Nothing is timed
here: the nanoseconds are the program's, and what it timed is compared with the reference.
"""

from __future__ import annotations

import importlib.util
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import export
from fastlstm.errors import InputError
from fastlstm.verify import REDUCED

from ..timing.driver import Taken, as_array
from ..timing.local import HOPELESS_NS, WARM_UP
from .contender import ALL, BATCH, RUN, STEP, Contender
from .pipe_checks import OutputCheck, times_in_a_row, times_on_schedule
from .pipe_process import SILENT_S, ContenderProcess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastlstm.model import Model

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

PROTOCOL = 1
FORMATS = ("safetensors", "onnx")
PRECISIONS = ("float32", "float64", *REDUCED)
MOST_TEXT = 300


@dataclass(frozen=True)
class Hello:
    """What a program says about itself."""

    name: str
    version: str
    configuration: str
    precision: str
    format: str
    can: frozenset[str]


def pipe_contender(command: str, silent_s: float = SILENT_S) -> Contender:
    """The program of that command line, split as a shell would, which is started to say its name.

    `silent_s` is how long it may take to answer. InputError for a command line that cannot be
    started, ContenderError for a program that does not speak the protocol.
    """
    with closing(ContenderProcess(command, silent_s)) as process:
        hello = _greet(process)

    def missing() -> str:
        if hello.format != "onnx" or importlib.util.find_spec("onnx"):
            return ""
        return "onnx not installed: pip install 'fastlstm[onnx]'"

    return Contender(
        name=hello.name,
        configuration=f"a process of its own, timed by its own clock; {hello.configuration}",
        open=partial(PipeSession, command=command, silent_s=silent_s),
        missing=missing,
        version=lambda: hello.version,
        can=hello.can,
        precision=hello.precision,
    )


def round_trip_ns(session: PipeSession, count: int = 1000) -> list[int]:
    """What one exchange that computes nothing costs, by this side's clock: in no other figure."""
    times = []
    for _ in range(count):
        start = perf_counter_ns()
        session.process.ask("ping")
        times.append(perf_counter_ns() - start)
    return times


def _greet(process: ContenderProcess) -> Hello:
    text = process.ask(f"hello {PROTOCOL}")
    fields = _fields(text)
    missing = {"protocol", "name", "version", "precision", "format", "can"} - fields.keys()
    if missing:
        raise process.nonsense(f"the fields {', '.join(sorted(missing))}", text)
    can = frozenset(fields["can"].split())
    for name, good, expected in (
        ("protocol", fields["protocol"] == str(PROTOCOL), f"version {PROTOCOL}"),
        ("format", fields["format"] in FORMATS, f"one of {', '.join(FORMATS)}"),
        ("precision", fields["precision"] in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
        ("can", can and can <= ALL, f"some of {', '.join(sorted(ALL))}"),
        ("name", fields["name"], "a name"),
    ):
        if not good:
            raise process.nonsense(f"{name}={expected}", f"{name}={fields[name]}")
    for name in ("name", "version", "configuration"):
        found = fields.get(name, "")
        if len(found) > MOST_TEXT or not found.isprintable():
            raise process.nonsense(f"{name}= at most {MOST_TEXT} printable characters", found)
    return Hello(
        fields["name"],
        fields["version"],
        fields.get("configuration", ""),
        fields["precision"],
        fields["format"],
        can,
    )


class PipeSession:
    """One model in a program of its own: a Session, and the Driver that times it."""

    def __init__(self, model: Model, command: str, silent_s: float = SILENT_S) -> None:
        """Start the program and have it load `model`.

        UnsupportedError where it says that it cannot; otherwise as `pipe_contender`.
        """
        self.model = model
        self.process = ContenderProcess(command, silent_s)
        try:
            self.hello = _greet(self.process)
            self._load()
        except BaseException:
            self.process.close()
            raise
        # The program holds one group of streams at a time; this is the number of the newest.
        self.group = 0
        self._check_outputs = OutputCheck(model, self.hello.precision)

    def _load(self) -> None:
        with TemporaryDirectory(prefix="fastlstm-contender-") as folder:
            path = Path(folder) / f"model.{self.hello.format}"
            if self.hello.format == "onnx":
                export.onnx(self.model, path)
            else:
                self.model.save(path)
            answer = self.process.ask(f"load {path}")
        sizes = [self.model.input_size, self.model.output_size]
        if answer.split() != [str(size) for size in sizes]:
            raise self.process.nonsense("ok {} {} after load".format(*sizes), f"ok{answer}")

    def reset(self) -> None:
        """See Session."""
        self.process.ask("reset")

    def step(self, x: Floats) -> Doubles:
        """See Session; a fresh array."""
        y: Doubles = self.outputs(f"step {_text(x)}", 1)[0]
        return y

    def run(self, x: Floats) -> Doubles:
        """See Session; a fresh array."""
        return self.outputs(f"run {len(x)} {_text(x)}", len(x))

    def batch(self, streams: int) -> PipeStreams:
        """See Session. A program holds one group of streams: a new one ends the one before."""
        return PipeStreams(self, streams)

    def close(self) -> None:
        """End the program; again does nothing."""
        self.process.close()

    def steps(self, x: Floats, singles: int) -> Taken:
        """See Driver."""
        warm = min(WARM_UP, len(x))
        blocks = np.concatenate([x, x[np.arange(singles) % len(x)]])[:, None]
        request = f"time-steps {warm} {singles} {len(x)} {_text(x)}"
        total, calls = self._turn(request, STEP, blocks, singles, total=True)
        return Taken(total / len(x), calls)

    def sequences(self, x: Floats, calls: int) -> Taken:
        """See Driver."""
        blocks = np.broadcast_to(x, (calls, *x.shape))
        _, times = self._turn(f"time-sequences 1 {calls} {len(x)} {_text(x)}", RUN, blocks, calls)
        return Taken(float(times.mean()) / len(x), times)

    def scheduled(self, blocks: Floats, due_ns: NDArray[np.int64]) -> Taken:
        """See Driver. Ends early once a call is done a second late."""
        calls, block, _ = blocks.shape
        due = " ".join(map(str, due_ns.tolist()))
        request = f"time-scheduled {min(WARM_UP, calls)} {calls} {block} {due} {_text(blocks)}"
        kind = RUN if block > 1 and RUN in self.hello.can else STEP
        _, late = self._turn(request, kind, blocks, calls, due_ns=due_ns)
        return Taken(float(np.median(late)) / block, late)

    def batches(self, x: Floats) -> Taken:
        """See Driver."""
        samples, streams, _ = x.shape
        self.group += 1
        request = f"time-batches {min(WARM_UP, samples)} {streams} {samples} {_text(x)}"
        _, times = self._turn(request, BATCH, x, samples)
        return Taken(float(times.mean()) / streams, times)

    def outputs(self, request: str, rows: int) -> Doubles:
        """The answer to an untimed request: (rows, O)."""
        columns = self.model.output_size
        answer = self.process.ask(request, values=rows * columns)
        return self._numbers(answer, rows * columns, "values").reshape(rows, columns)

    def _numbers(self, text: str, count: int, what: str) -> Doubles:
        words = text.split()
        try:
            found = np.array([float(word) for word in words])
        except ValueError:
            raise self.process.nonsense(f"{count} {what}", text.strip()) from None
        if len(found) != count:
            raise self.process.nonsense(f"{count} {what}", f"{len(found)}: {text.strip()}")
        return found

    def _turn(
        self,
        request: str,
        kind: str,
        blocks: Floats,
        calls: int,
        *,
        total: bool = False,
        due_ns: NDArray[np.int64] | None = None,
    ) -> tuple[int, NDArray[np.int64]]:
        """A timed turn of `blocks`: its total, if there is one, and the nanoseconds of each call.

        Refuses times that cannot be, and outputs that are not those of `blocks`.
        """
        width = self.model.output_size * (blocks.shape[1] if kind == BATCH else 1)
        wait_s = float(due_ns[-1]) / 1e9 if due_ns is not None else 0.0
        start = perf_counter_ns()
        answer = self.process.ask(request, values=calls + 2 * width + 1, wait_s=wait_s)
        passed_ns = perf_counter_ns() - start
        fields = _fields(answer)
        wanted = ["total"] * total + ["calls", "last", "sum"]
        if missing := [name for name in wanted if name not in fields]:
            raise self.process.nonsense(f"the fields {', '.join(missing)}", answer)
        times = self._times(fields["calls"])
        total_ns = int(self._times(fields["total"]).sum()) if total else 0
        if total and not total_ns:
            raise self.process.nonsense("a total= above 0 ns", fields["total"])
        late = due_ns is not None and 0 < len(times) < calls and times[-1] > HOPELESS_NS
        if len(times) != calls and not late:
            raise self.process.nonsense(f"{calls} times in calls=", f"{len(times)}")
        last = self._numbers(fields["last"], width, "values in last=")
        sums = self._numbers(fields["sum"], width, "values in sum=")
        complaint = (
            times_in_a_row(times, total_ns, passed_ns)
            if due_ns is None
            else times_on_schedule(times, due_ns, passed_ns)
        ) or self._check_outputs(
            kind, blocks, len(blocks) - calls + len(times), last, sums, self._untimed
        )
        if complaint:
            raise self.process.nonsense(*complaint)
        return total_ns, times

    def _untimed(self, kind: str, blocks: Floats) -> Doubles:
        """The outputs of untimed calls for those of a turn: (steps, values)."""
        if kind == BATCH:
            streams = self.batch(blocks.shape[1])
            return np.stack([streams.step(x).ravel() for x in blocks])
        self.reset()
        if kind == RUN:
            return np.concatenate([self.run(block) for block in blocks])
        return np.stack([self.step(x) for x in blocks.reshape(-1, blocks.shape[2])])

    def _times(self, text: str) -> NDArray[np.int64]:
        words = text.split()
        if not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
            raise self.process.nonsense("whole nanoseconds of at least 0", text)
        return as_array([int(word) for word in words])


class PipeStreams:
    """Several live streams of one session's model; only the newest group of a session is live."""

    def __init__(self, session: PipeSession, streams: int) -> None:
        """Begin so many streams, all in the initial state."""
        self.session, self.streams = session, streams
        self.reset()

    def reset(self) -> None:
        """See Streams; makes this group the live one."""
        self.session.process.ask(f"begin {self.streams}")
        self.session.group += 1
        self.group = self.session.group

    def step(self, x: Floats) -> Doubles:
        """See Streams; a fresh array. InputError where another group has begun since."""
        if self.session.group != self.group:
            raise InputError(
                "streams: expected the newest group of the session, found one that ended when "
                "another began: reset it"
            )
        return self.session.outputs(f"batch {_text(x)}", self.streams)


def _fields(text: str) -> dict[str, str]:
    """The name=value fields of an answer, which tabs part."""
    parts = (field.partition("=") for field in text.split("\t"))
    return {name.strip(): value.strip() for name, equals, value in parts if equals}


def _text(values: Any) -> str:
    """Numbers as the protocol writes them: nine digits bring every float32 back."""
    return " ".join([f"{value:.9g}" for value in np.asarray(values, np.float32).ravel().tolist()])
