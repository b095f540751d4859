"""A whole run over made-up contenders: who is in the document, with what, and who is not."""

import json
import os

import numpy as np
import pytest

import cases
from fastlstm.bench import benchmark as subject
from fastlstm.bench import presets
from fastlstm.bench.benchmark import Plan, benchmark, fitting
from fastlstm.bench.contenders import own_streams
from fastlstm.bench.contenders.contender import RUN, STEP, Contender
from fastlstm.bench.contenders.contender_list import CONTENDERS, OUR_NAMES, OURS, named
from fastlstm.bench.floor.session import NAME as FLOOR
from fastlstm.bench.models import plain_model
from fastlstm.bench.reports import document
from fastlstm.bench.timing.modes import CLOSED, PERIODIC, POISSON, SEQUENCE, STREAMS, Mode
from fastlstm.errors import InputError
from fastlstm.model import Model

MODEL = cases.stack("LSTM", 4, 1, inputs=1)
FEW = (
    Mode(CLOSED, calls=8),
    Mode(SEQUENCE, steps=40),
    Mode(PERIODIC, calls=4, block=8, rate_hz=48_000),
    Mode(POISSON, calls=4, rate_hz=10_000),
    Mode(STREAMS, calls=5, streams=3),
)
OUR_CONTENDERS = own_streams.CONTENDERS


def rival(name, open_session, **settings):
    return Contender(
        name, f"as {name} is set up", open_session, lambda: "", lambda: "1.2", **settings
    )


class Off:
    """Our own session with something added to what it puts out."""

    def __init__(self, model, off):
        self.session, self.off, self.closed = OUR_CONTENDERS[0].open(model), np.float32(off), 0

    def __getattr__(self, name):
        return getattr(self.session, name)

    def step(self, x):
        return self.session.step(x) + self.off

    timed_step = step

    def run(self, x):
        return self.session.run(x) + self.off

    def close(self):
        self.closed += 1


def breaks(model):
    raise OSError("no such device")


def run(*rivals, modes=FEW, model=MODEL, **settings):
    plan = Plan("test", {"small": model}, modes, (*OUR_CONTENDERS, *rivals), 2, **settings)
    return benchmark(plan, command="fastlstm bench test")


def test_a_whole_run_on_made_up_contenders(tmp_path):
    opened = []

    def keep(off):
        def open_session(model):
            opened.append(Off(model, off))
            return opened[-1]

        return open_session

    steps_only = frozenset((STEP,))
    found = run(
        rival("right", keep(0)),
        rival("wrong", keep(1e-3), can=steps_only),
        rival("broken", breaks),
        Contender("absent", "-", breaks, lambda: "x not installed: install it", lambda: "?"),
    )
    rows = {(row.mode, row.contender): row for row in found.rows}
    assert len(rows) == len(found.rows)
    for mode in FEW:
        ours = rows[mode.name, OURS[mode.needs]]
        assert ours.ratio.value == ours.ratio.low == ours.ratio.high == 1
        assert ours.error < 1e-6 <= ours.bound
        assert ours.ns.low > 0
        right = rows[mode.name, "right"]
        assert right.error == ours.error
        # Each round's ratio is between the two rounds' times of both, so is their median.
        assert right.ratio.low <= right.ratio.value <= right.ratio.high
        assert rows[mode.name, "broken"].note == "failed: OSError: no such device"
        assert rows[mode.name, "absent"].note == "missing: x not installed: install it"
    wrong = rows["step", "wrong"]
    assert wrong.note.startswith("refused: differs from the reference by 1.00e-03, allowed ")
    assert (wrong.ns, wrong.error) == (None, pytest.approx(1e-3, rel=0.01))
    assert rows["sequence", "wrong"].note == "unsupported: it takes single steps only"
    # Calls that were counted: so many a turn, two turns.
    assert rows["step", "right"].latency.samples == 2 * 8
    assert rows[FEW[2].name, "right"].latency.samples == 2 * 4
    assert rows[FEW[4].name, "right"].latency.samples == 2 * 5
    assert rows[FEW[2].name, "right"].deadline.calls == 8
    # The floor stands below the modes that it is the floor of, and no other.
    assert {mode for mode, name in rows if name == FLOOR} == {"step", "sequence"}
    # One session a contender, checked and timed; closed at the end.
    assert [session.closed for session in opened] == [1, 1]
    assert [info.name for info in found.contenders][-5:] == [
        "right",
        "wrong",
        "broken",
        "absent",
        FLOOR,
    ]
    assert found.contender("right").configuration == "as right is set up"
    assert found.contender("absent").version == ""
    assert found.models[0].parameters == MODEL.num_parameters
    assert [mode.name for mode in found.modes] == [mode.name for mode in FEW]
    # Written and read again, it is the same.
    path = tmp_path / "result.json"
    document.write(found, path)
    assert document.read(path) == found
    assert json.loads(path.read_text())["schema"] == "fastlstm-bench-2"
    # One model: what to take is said for each way of calling.
    assert {advice.contender for advice in found.advice} <= {"right", *OUR_NAMES}
    assert len(found.advice) == len(FEW)


def test_a_contender_that_breaks_while_it_is_timed_is_out_with_why():
    class Fragile(Off):
        calls = 0

        def timed_step(self, x):
            self.calls += 1
            if self.calls > 100:
                raise RuntimeError("worn out")
            return self.step(x)

    found = run(rival("fragile", lambda model: Fragile(model, 0)), modes=FEW[:2])
    rows = {(row.mode, row.contender): row for row in found.rows}
    assert rows["step", "fragile"].note == "failed: RuntimeError: worn out"
    assert rows["step", "fragile"].ns is None
    assert rows["sequence", "fragile"].ns is not None
    assert rows["step", OURS[STEP]].note == ""


def test_the_rounds_are_pinned_and_one_thread(monkeypatch):
    seen = []

    class Watching(Off):
        def timed_step(self, x):
            import torch

            seen.append((len(os.sched_getaffinity(0)), torch.get_num_threads()))
            return self.step(x)

    pytest.importorskip("torch", reason="torch is not installed")
    before = os.sched_getaffinity(0)
    run(rival("watching", lambda model: Watching(model, 0)), modes=FEW[:1], floor=False)
    assert seen[-1] == (1, 1)
    assert os.sched_getaffinity(0) == before


def test_a_bidirectional_model_is_timed_by_whole_sequences():
    both = Model((cases.bidirectional("LSTM", 1, 4),))
    found = run(model=both, modes=(Mode(SEQUENCE, steps=30), Mode(CLOSED)))
    rows = {(row.mode, row.contender): row for row in found.rows}
    whole = rows["sequence", OURS[RUN]]
    assert whole.ns.value > 0
    assert whole.error < 1e-6
    assert "unsupported" in rows["step", OURS[STEP]].note
    assert FLOOR not in {row.contender for row in found.rows}


def test_a_great_network_runs_a_shorter_sequence():
    whole = Mode(SEQUENCE, steps=1000)
    sizes = (8, 256, 512, 1024)
    steps = [fitting(whole, plain_model("LSTM", size)).steps for size in sizes]
    assert steps == [1000, 1000, 379, 100]
    assert fitting(FEW[0], plain_model("LSTM", 1024)) is FEW[0]


def test_names_are_found_and_others_refused():
    assert named(OURS[STEP]).name == OURS[STEP]
    with pytest.raises(InputError, match="ONNX Runtime"):
        named("onnx-runtime")


def test_the_presets_are_what_the_issue_of_speed_is_about():
    ladder = presets.ladder(CONTENDERS)
    assert [model.states[0].size for model in ladder.models.values()] == list(presets.LADDER_SIZES)
    assert ladder.hidden == {f"LSTM 1x{size}": size for size in presets.LADDER_SIZES}
    assert list(presets.ladder(CONTENDERS, [5, 7]).models) == ["LSTM 1x5", "LSTM 1x7"]
    stacks = presets.stacks(CONTENDERS)
    assert list(stacks.models) == [
        "LSTM 2x128",
        "LSTM 3x256",
        "LSTM 3x480",
        "LSTM 6x320",
        "LSTM 3x960",
    ]
    assert [one.ns for one in stacks.published] == [1900, 3000, 4200, 4300, 8500]
    assert stacks.models["LSTM 3x960"].num_parameters > 22_000_000
    audio = presets.audio(CONTENDERS)
    assert [(m.states[0].size, len(m.layers) - 1) for m in audio.models.values()] == [
        (16, 1),
        (40, 1),
        (24, 2),
    ]
    block = audio.modes[0]
    assert (block.block, block.rate_hz) == (64, 48_000)
    # p99.9 needs 3,688 calls.
    assert block.calls * audio.rounds >= 3688
    assert not any(one.builds for one in presets.quick(CONTENDERS).contenders)
    assert {mode.kind for mode in presets.quick(CONTENDERS).modes} == {
        CLOSED,
        SEQUENCE,
        PERIODIC,
        POISSON,
        STREAMS,
    }


def test_a_plan_for_a_user_s_model():
    plan = presets.own_model(CONTENDERS, "mine", MODEL)
    assert [mode.kind for mode in plan.modes] == [CLOSED, SEQUENCE, POISSON, STREAMS]
    assert (plan.cold_starts, plan.warm_starts) == (1, 3)
    assert presets.without_starts(plan).warm_starts == 0
    assert presets.with_rounds(plan, 3).rounds == 3
    assert presets.with_rounds(plan, None) is plan
    timed = presets.own_model(CONTENDERS, "mine", MODEL, rate_hz=48_000, block=64, streams=(4, 64))
    assert [mode.kind for mode in timed.modes] == [CLOSED, SEQUENCE, PERIODIC, STREAMS, STREAMS]
    assert timed.modes[2].block == 64
    assert [mode.streams for mode in timed.modes[3:]] == [4, 64]
    assert all(mode.rate_hz == 48_000 for mode in timed.modes[:3])


def test_the_start_up_is_measured_where_the_plan_says_so(monkeypatch):
    asked = []

    def measure(models, *, cold, warm, progress):
        asked.append((list(models), cold, warm))
        return (document.Start(model="small", contender="x", resident_bytes=5),)

    monkeypatch.setattr(subject, "measure_starts", measure)
    found = run(modes=FEW[:1], floor=False, cold_starts=2, warm_starts=4)
    assert asked == [(["small"], 2, 4)]
    assert found.starts[0].resident_bytes == 5
    assert run(modes=FEW[:1], floor=False).starts == ()
    assert len(asked) == 1
