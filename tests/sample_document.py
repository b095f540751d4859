"""A made-up result of a ladder and of an audio preset, as large and awkward as a real one.

Every figure comes from a fixed seed. ONNX Runtime in int8 is faster than ours on the largest
model, OpenCV refuses to step, and TorchScript cannot keep up with the audio.
"""

import json
import zlib
from functools import cache

import numpy as np

from fastlstm.bench.reports.document import (
    Advice,
    ContenderInfo,
    Deadline,
    Document,
    Estimate,
    Latency,
    ModeInfo,
    ModelInfo,
    Noise,
    Percentile,
    Published,
    Row,
    Start,
)

SIZES = (8, 32, 128, 512)
OURS, OURS_RUN, FLOOR = "fastlstm push", "fastlstm run", "only loading the weights"
INT8, REFUSING, SLOW = "ONNX Runtime int8", "OpenCV dnn", "TorchScript"
# Nanoseconds of a step at 8 units, and what each weight adds; for a sequence the same.
STEP = {
    OURS: (95, 0.038),
    "fastlstm step": (220, 0.038),
    "NumPy reference": (5200, 0.11),
    "torch eager": (24_000, 0.09),
    "torch cells": (12_200, 0.09),
    "torch.compile": (19_900, 0.07),
    SLOW: (20_100, 0.09),
    "AOTInductor": (3000, 0.08),
    "ONNX Runtime": (7900, 0.06),
    "ONNX Runtime bound": (4700, 0.06),
    INT8: (5100, 0.022),
    "OpenVINO": (9100, 0.058),
    "tinygrad": (310_000, 0.2),
    FLOOR: (12, 0.036),
}
SEQUENCE = {
    OURS_RUN: (33, 0.036),
    "torch eager": (290, 0.05),
    SLOW: (286, 0.051),
    "ONNX Runtime": (150, 0.036),
    INT8: (170, 0.018),
    "OpenVINO": (310, 0.045),
    "OpenCV dnn": (420, 0.08),
    FLOOR: (12, 0.034),
}
CONFIGURATION = {
    OURS: "one thread; one call a step, output into a buffer",
    INT8: "one thread; dynamic quantisation, weights int8",
    FLOOR: "forward, 64-byte lines",
}
REFUSAL = "refused: no state | between calls <opencv_dnn> & no *fix*"
UNSUPPORTED = "unsupported: it takes single steps only"


def weights(hidden):
    return 4 * hidden * (hidden + 1) + 8 * hidden + hidden + 1


def estimate(value, spread=0.01, digits=4):
    low, high = value * (1 - spread), value * (1 + 1.3 * spread)
    return Estimate(
        value=float(f"{value:.{digits}g}"),
        low=float(f"{low:.{digits}g}"),
        high=float(f"{high:.{digits}g}"),
    )


def latency(median_ns, seed, samples=4500):
    from hdrh.histogram import HdrHistogram

    rng = np.random.default_rng(seed)
    calls = median_ns * np.exp(np.abs(rng.normal(0, 0.06, samples)))
    stalls = rng.random(samples) < 0.004
    calls[stalls] += rng.exponential(20_000, stalls.sum()) + 1500
    calls = np.sort(calls.astype(np.int64))
    histogram = HdrHistogram(1, 100_000_000_000, 3)
    for value in calls.tolist():
        histogram.record_value(value)
    percentiles = []
    for percent in (50, 90, 99, 99.9):
        at = samples * percent / 100
        wide = 1.96 * np.sqrt(at * (1 - percent / 100))
        if at + wide < samples:
            low, value, high = (int(calls[int(k)]) for k in (at - wide, at, at + wide))
            percentiles.append(Percentile(percent=percent, ns=value, low=low, high=high))
    return Latency(
        samples=samples,
        histogram=histogram.encode().decode("ascii"),
        percentiles=tuple(percentiles),
        max_ns=int(calls[-1]),
    )


def seed_of(*words):
    return zlib.crc32(" ".join(map(str, words)).encode())


def row(model, mode, name, ns, ours_ns, calls=4500, **more):
    rng = np.random.default_rng(seed_of(model, mode, name))
    ours, floor = name in (OURS, OURS_RUN), name == FLOOR
    ns = ns if ours else ns * rng.uniform(0.97, 1.03)
    error = 3e-8 * rng.uniform(0.5, 2) * (9e4 if name == INT8 else 1)
    return Row(
        model=model,
        mode=mode,
        contender=name,
        ns=estimate(ns),
        ratio=Estimate(value=1, low=1, high=1) if ours else estimate(ns / ours_ns, 0.015),
        rounds_ns=tuple(float(f"{ns * rng.uniform(0.99, 1.02):.5g}") for _ in range(15)),
        latency=None if floor else latency(1.05 * ns, seed_of(name, model), calls),
        error=None if floor else float(f"{error:.4g}"),
        bound=None if floor else 1e-6,
        **more,
    )


def contender(name):
    library = {"fastlstm": "0.1.0", "ONNX": "1.31.1", "OpenVINO": "2025.3", "OpenCV": "4.12.0"}
    return ContenderInfo(
        name=name,
        configuration=CONFIGURATION.get(name, "one thread; one call a step"),
        version=library.get(name.split()[0], "2.13.0" if "torch" in name.lower() else ""),
        precision={INT8: "int8", "NumPy reference": "float64"}.get(name, "float32"),
        ours=name.startswith("fastlstm"),
        floor=name == FLOOR,
    )


def renamed(document, old, new):
    """The document with another name, wherever the old one stands."""
    text = document.to_json().replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
    return Document.model_validate_json(text)


def untimed(document):
    """The document where everything was refused."""
    rows = tuple(
        Row(model=r.model, mode=r.mode, contender=r.contender, note=r.note or "refused: <all>")
        for r in document.rows
    )
    return document.model_copy(update={"rows": rows, "starts": (), "advice": ()})


def around(rows, models, modes, names, **more):
    """The rest of a document."""
    return Document(
        command=f"fastlstm bench {more['preset']} --json result.json",
        started="2025-11-30T22:00:00Z",
        seconds=1234.5,
        machine={
            "processor": "Some CPU 9000",
            "cores": 2,
            "load_average": 0.125,
            "governor": None,
            "system": "Linux 6.18 x86_64",
            "python": "3.11.7",
            "vector_width": 16,
            "threads": 1,
            "versions": {"numpy": "2.4.6", "torch": "2.13.0+cpu", "onnx": None},
        },
        settings={"rounds": 15, "threads": 1, "seed": 0},
        confidence=0.95,
        contenders=tuple(map(contender, names)),
        modes=modes,
        models=models,
        rows=tuple(rows),
        **more,
    )


@cache
def ladder(sizes=SIZES, scale=1.0):
    """LSTMs of several sizes, by step and whole sequences; `scale` makes ours slower."""
    models = tuple(
        ModelInfo(
            name=f"LSTM 1x{h}",
            layers=f"LSTM(1, {h}), Dense({h}, 1)",
            inputs=1,
            outputs=1,
            parameters=weights(h),
            hidden=h,
        )
        for h in sizes
    )
    modes = (
        ModeInfo(
            name="step",
            kind="closed",
            meaning="One call a time step from Python, the state carried.",
            ours=OURS,
            unit="step",
        ),
        ModeInfo(
            name="sequence",
            kind="sequence",
            meaning="One call for 1,000 time steps, divided by its steps.",
            ours=OURS_RUN,
            unit="step",
            block=1000,
        ),
    )
    rows = []
    for h in sizes:
        model = f"LSTM 1x{h}"
        for mode, table in (("step", STEP), ("sequence", SEQUENCE)):
            own = next(iter(table))
            ours_ns = scale * (table[own][0] + table[own][1] * weights(h))
            for name, (call, weight) in table.items():
                ns = ours_ns if name == own else call + weight * weights(h)
                calls = {"calls": 300} if name == "tinygrad" or mode == "sequence" else {}
                rows.append(row(model, mode, name, ns, ours_ns, **calls))
        rows.append(Row(model=model, mode="step", contender=REFUSING, note=REFUSAL))
        for name in ("torch cells", "torch.compile"):
            rows.append(Row(model=model, mode="sequence", contender=name, note=UNSUPPORTED))
    rows.append(
        Row(
            model=f"LSTM 1x{sizes[-1]}",
            mode="sequence",
            contender="AOTInductor",
            note="refused: differs from the reference by 3.00e-02, bound 1.0e-06",
        )
    )
    model = f"LSTM 1x{sizes[1]}"
    return around(
        rows,
        models,
        modes,
        [*STEP, OURS_RUN, "OpenCV dnn"],
        preset="ladder",
        noise=Noise(
            load_before=0.12,
            load_after=1.4,
            calibration_ns=1_250_000.0,
            calibration_spread=0.021,
            calibration_worst=0.31,
            stolen=0.0042,
            involuntary_switches=1234,
            warnings=(
                "the load after the run was 1.40 on 2 cores: something else ran",
                "frequency scaling <on> & the governor is unknown",
            ),
        ),
        starts=(
            Start(
                model=model,
                contender="ONNX Runtime",
                warm_s=estimate(0.412),
                first_call_ns=310_000.0,
                steps_ns=8100.0,
                allocations_per_step=14.0,
                resident_bytes=92_300_000,
                file_bytes=19_456,
                library_bytes=61_000_000,
                error=2e-8,
            ),
            Start(
                model=model,
                contender=OURS,
                cold_s=estimate(9.8),
                warm_s=estimate(0.291),
                first_call_ns=41_000.0,
                steps_ns=162.0,
                allocations_per_step=0.0,
                resident_bytes=131_000_000,
                file_bytes=18_700,
                library_bytes=170_000_000,
                error=1.5e-8,
            ),
            Start(model=model, contender="OpenCV dnn", note="refused: no state between calls"),
        ),
        published=(
            Published(
                model=model,
                mode="step",
                what="Maker's C++ runtime",
                ns=140.0,
                source="https://example.org/figures_2024, table 2",
            ),
        ),
        advice=(
            Advice(
                question="Which answers fastest, one sample at a time?",
                contender=OURS,
                reasons=("162 ns a step, the next 4.9 µs", "its p99.9 is below 30 µs"),
            ),
            Advice(
                question="Which starts fastest?",
                contender="ONNX Runtime",
                reasons=("no machine code to compile & keep",),
            ),
        ),
    )


@cache
def audio():
    """One larger model that gets 64 samples at an even rate, and one mode of single steps."""
    model = ModelInfo(
        name="amp & cab",
        layers="LSTM(1, 40), Dense(40, 1)",
        inputs=1,
        outputs=1,
        parameters=weights(40),
    )
    period = 64 / 48_000 * 1e9
    modes = (
        ModeInfo(
            name="64 samples every 1.333 ms",
            kind="periodic",
            meaning="750 calls a second of 64 time steps each, timed from when each was due.",
            ours=OURS_RUN,
            unit="call",
            block=64,
            rate_hz=48_000.0,
        ),
        ModeInfo(
            name="step",
            kind="closed",
            meaning="One call a time step from Python, the state carried.",
            ours=OURS,
            unit="step",
        ),
    )
    rows = []
    blocks = {OURS_RUN: 9000, "ONNX Runtime": 19_000, "OpenVINO": 31_000, SLOW: 1_900_000}
    for name, ns in blocks.items():
        slow = ns > period
        late = Deadline(period_ns=period, missed=2990 if slow else 0, calls=3000, overrun=slow)
        if name == "OpenVINO":
            late = late.model_copy(update={"missed": 3})
        real = float(f"{period / ns:.4g}")
        more = {"deadline": late, "times_real_time": real, "calls": 3000}
        rows.append(row(model.name, modes[0].name, name, ns, blocks[OURS_RUN], **more))
    for name, (call, weight) in STEP.items():
        ours_ns = STEP[OURS][0] + STEP[OURS][1] * weights(40)
        rows.append(row(model.name, "step", name, call + weight * weights(40), ours_ns))
    # Two that ours does not beat: one clearly, one within the interval.
    rows.append(row(model.name, "step", "C++ by hand", 0.82 * ours_ns, ours_ns))
    rows.append(row(model.name, "step", "Rust_crate", 1.0 * ours_ns, ours_ns))
    return around(
        rows,
        (model,),
        modes,
        [*STEP, OURS_RUN, "C++ by hand", "Rust_crate"],
        preset="audio",
        noise=Noise(calibration_ns=1_250_000.0, calibration_spread=0.004, calibration_worst=0.02),
    )
