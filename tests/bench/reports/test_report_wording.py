"""How figures read, by hand-made examples at the edges of units and places."""

import pytest

pytest.importorskip("pydantic", reason="pydantic is not installed")

from fastlstm.bench.reports import wording
from fastlstm.bench.reports.document import Estimate


@pytest.mark.parametrize(
    ("ns", "words"),
    [
        (None, "-"),
        (0.0, "0.00 ns"),
        (0.456, "0.46 ns"),
        (101.4, "101 ns"),
        (999.4, "999 ns"),
        (999.6, "1.00 µs"),
        (3049.0, "3.05 µs"),
        (45_300.2, "45.3 µs"),
        (1_234_567.0, "1.23 ms"),
        (2.5e9, "2.50 s"),
        (1.5e12, "1,500 s"),
    ],
)
def test_a_time_has_the_unit_that_leaves_three_digits(ns, words):
    assert wording.duration(ns) == words


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (None, "-"),
        (1.0, "1.00"),
        (0.9951, "0.995"),
        (1.0049, "1.005"),
        (0.985, "0.98"),
        (0.0123, "0.012"),
        (1.78, "1.78"),
        (1.996, "2.0"),
        (44.66, "44.7"),
        (2908.4, "2,908"),
    ],
)
def test_a_ratio_near_one_is_never_rounded_to_a_draw(ratio, words):
    assert wording.times(ratio) == words


def test_sizes_shares_changes_and_errors():
    assert [wording.size(n) for n in (None, 0, 999, 18_700, 131e6, 2.5e9)] == [
        "-",
        "0 B",
        "999 B",
        "18.7 kB",
        "131 MB",
        "2.50 GB",
    ]
    assert [wording.share(s) for s in (0.0042, 0.021, 0.31)] == ["0.42 %", "2.1 %", "31 %"]
    assert [wording.change(f) for f in (1.2, 0.8333, 1.0, 3.4, 0.25)] == [
        "+20 %",
        "-17 %",
        "+0.00 %",
        "x 3.4",
        "x 0.25",
    ]
    assert [wording.error(e) for e in (None, 0.0, 3e-8)] == ["-", "0", "3.0e-08"]
    assert [wording.percent(p) for p in (50.0, 99.9)] == ["p50", "p99.9"]
    assert wording.seconds(0.0412) == "41.2 ms"


def test_an_interval_names_its_unit_once_and_vanishes_where_it_has_no_width():
    assert wording.durations(98.4, 103.0) == "98.4 to 103 ns"
    assert wording.durations(990.0, 1010.0) == "990 ns to 1.01 µs"
    wide, narrow = (Estimate(value=2, low=1, high=h) for h in (3, 1))
    assert wording.interval_of(wide, wording.times) == "1.00 to 3.0"
    assert wording.interval_of(narrow, wording.times) == ""
    assert wording.interval_of(None, wording.times) == ""
