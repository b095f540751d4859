"""Advice is read off the figures: the fastest that is right, why, and what speaks for others."""

import pytest

import sample_document
from fastlstm.bench.reports.advice import advise
from fastlstm.bench.reports.document import Deadline, Estimate, Start


def found(document):
    return {advice.question: advice for advice in advise(document)}


def changed(document, contender, **changes):
    """The document with other figures in every row of one contender."""
    rows = [
        row.model_copy(update=changes) if row.contender == contender else row
        for row in document.rows
    ]
    return document.model_copy(update={"rows": tuple(rows)})


STEP = "One live stream, a call for each sample"


def test_the_fastest_that_is_right_is_advised_with_its_figures():
    # The first model of the sample: 8 units, ours by far.
    advice = found(sample_document.ladder())[STEP]
    assert advice.contender == "fastlstm push"
    speed, after = advice.reasons
    assert speed.startswith("109 ns a time step; p99.9 of 4,500 calls")
    assert "of the float64 reference" in speed
    # AOTInductor is the next that is no call of ours.
    assert after.startswith("the next, AOTInductor, takes ")
    row = next(r for r in sample_document.ladder().rows if r.contender == "AOTInductor")
    # The ratio of the table, which was taken within each round, and no quotient of medians.
    assert f"takes {row.ratio.value:.1f} times as long" in after


def test_where_ours_loses_another_is_advised():
    fast = Estimate(value=50.0, low=49.0, high=51.0)
    document = changed(sample_document.ladder(), "OpenVINO", ns=fast)
    advice = found(document)[STEP]
    assert advice.contender == "OpenVINO"
    assert "the next, fastlstm push, takes" in advice.reasons[1]


def test_a_draw_is_told_as_one():
    near = Estimate(value=110.0, low=100.0, high=120.0)
    advice = found(changed(sample_document.ladder(), "OpenVINO", ns=near))[STEP]
    assert advice.contender == "fastlstm push"
    assert advice.reasons[1] == "OpenVINO is as fast within the noise: 110 ns"


def test_int8_is_never_advised_and_its_error_is_told():
    fast = Estimate(value=10.0, low=9.0, high=11.0)
    advice = found(changed(sample_document.ladder(), "ONNX Runtime int8", ns=fast, error=0.02))[
        STEP
    ]
    assert advice.contender == "fastlstm push"
    assert advice.reasons[-1] == (
        "ONNX Runtime int8 is faster, 10.0 ns, but another network: its outputs differ by up to "
        "2.0e-02"
    )


def test_the_floor_and_the_refused_are_no_answer():
    document = sample_document.ladder()
    names = {advice.contender for advice in advise(document)}
    assert "only loading the weights" not in names
    assert "OpenCV" not in names


def test_a_rate_is_answered_by_who_misses_no_deadline():
    audio = sample_document.audio()
    (question,) = (q for q in found(audio) if q.startswith("A block at a fixed rate"))
    advice = found(audio)[question]
    assert "64 samples every 1.333 ms" in question
    assert advice.contender == "fastlstm run"
    assert "0 of 3,000 calls were done later than one period" in advice.reasons
    assert "too slow for this rate: TorchScript" in advice.reasons
    # The fastest, if it misses some, comes after one that misses none.
    late = Deadline(period_ns=64e9 / 48_000, missed=7, calls=3000, overrun=False)
    other = found(changed(audio, "fastlstm run", deadline=late))[question]
    assert other.contender == "ONNX Runtime"


def start(name, **figures):
    return Start(model="LSTM 1x8", contender=name, **figures)


def test_start_memory_and_disk_go_to_whoever_has_least():
    second = Estimate(value=1.0, low=0.9, high=1.1)
    starts = (
        start("A", warm_s=second, resident_bytes=50_000_000, library_bytes=9_000_000,
              allocations_per_step=3.0, file_bytes=2000),
        start("B", warm_s=Estimate(value=0.25, low=0.2, high=0.3), cold_s=second,
              resident_bytes=80_000_000, library_bytes=90_000_000, allocations_per_step=0.0),
        start("C", warm_s=Estimate(value=0.01, low=0.01, high=0.01), note="refused: wrong"),
    )  # fmt: skip
    answers = found(sample_document.ladder().model_copy(update={"starts": starts}))
    often = answers["A process that starts often, such as a command"]
    assert (often.contender, often.reasons[0]) == (
        "B",
        "250 ms from the start of a process to its first output",
    )
    assert often.reasons[1:] == (
        "1.00 s where no machine code is kept yet",
        "the next, A, takes 1.00 s",
    )
    memory = answers["A machine with little memory"]
    assert memory.contender == "A"
    assert memory.reasons == (
        "50.0 MB resident, the interpreter included",
        "the next, B, has 80.0 MB",
        "no allocation in a step: B",
    )
    small = answers["A small installation"]
    assert (small.contender, small.reasons[0]) == ("A", "9.00 MB of libraries")
    assert small.reasons[1] == "2.00 kB for the model itself"


def test_another_language_is_answered_by_the_onnx_file_where_it_is_right():
    advice = found(sample_document.ladder())["Another language, a browser, a phone"]
    assert advice.contender == "the ONNX file"
    gone = sample_document.ladder()
    for name in ("ONNX Runtime", "ONNX Runtime bound", "ONNX Runtime int8"):
        gone = changed(gone, name, ns=None, note="missing: not installed")
    assert "Another language, a browser, a phone" not in found(gone)


def test_nothing_is_advised_where_nothing_was_timed():
    document = sample_document.ladder()
    rows = tuple(row.model_copy(update={"ns": None, "note": "missing"}) for row in document.rows)
    assert advise(document.model_copy(update={"rows": rows, "starts": ()})) == ()
    assert advise(document.model_copy(update={"models": ()})) == ()


@pytest.mark.parametrize("document", [sample_document.ladder(), sample_document.audio()])
def test_every_answer_has_reasons(document):
    assert all(advice.reasons and all(advice.reasons) for advice in advise(document))
