"""Holes and gaps: refused with their place, left out, or filled in linearly in time."""

import datetime

import numpy as np
import polars as pl
import pytest

from fastlstm.errors import SeriesError
from fastlstm.train.series import read_series

HOLES = """id,t,a,b
x,1,1,10
x,2,,20
x,4,7,
x,5,9,50
y,1,0,0
y,2,nan,1
y,3,2,2
"""


@pytest.fixture
def read(tmp_path):
    def from_text(text, **options):
        path = tmp_path / "data.csv"
        path.write_text(text)
        return read_series(path, **options)

    return from_text


def test_rows_with_a_hole_are_left_out(read):
    options = {"inputs": ["a"], "targets": ["b"], "sequence": "id", "missing": "drop"}
    series = read(HOLES, **options, time="t")
    assert series.lengths == (2, 2)
    assert series.inputs[:, 0].tolist() == [1, 9, 0, 2]
    assert series.targets[:, 0].tolist() == [10, 50, 0, 2]
    assert series.time.tolist() == [1, 5, 1, 3]
    # Only the columns that are read count.
    alone = read(HOLES, inputs=["b"], sequence="id", missing="drop")
    assert alone.lengths == (3, 3)
    assert alone.time.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_sequence_of_nothing_but_holes_is_left_out(read):
    text = "id,a\nx,1\nx,2\ny,\nz,3\nz,4\n"
    series = read(text, inputs=["a"], sequence="id", missing="drop")
    assert series.lengths == (2, 2)
    assert series.inputs[:, 0].tolist() == [1, 2, 3, 4]
    with pytest.raises(SeriesError, match=r'every row .* in one of a, b, so missing = "drop" le'):
        read("a,b\n1,\n,2\n", inputs=["a", "b"], missing="drop")


def test_rows_without_a_time_are_left_out_too(read):
    series = read("t,a\n2001-01-01,1\n,2\n2001-01-03,3\n", time="t", missing="drop")
    assert series.inputs[:, 0].tolist() == [1, 3]
    assert len(series.time) == 2


def test_rows_are_numbered_as_in_the_file_after_some_were_left_out(read):
    with pytest.raises(SeriesError, match=r"row 4 holds 1\.0 after 3\.0"):
        read("t,a\n1.0,1\n2.0,\n3.0,3\n1.0,4\n", time="t", missing="drop")


def test_holes_are_filled_linearly_in_time_within_their_sequence(read):
    # The times 1, 2, 4, 5 have a gap at 3, which is filled too.
    options = {"inputs": ["a"], "targets": ["b"], "sequence": "id", "missing": "interpolate"}
    series = read(HOLES, **options, time="t")
    assert series.lengths == (5, 3)
    np.testing.assert_allclose(series.inputs[:, 0], [1, 3, 5, 7, 9, 0, 1, 2], atol=1e-12)
    np.testing.assert_allclose(series.targets[:, 0], [10, 20, 30, 40, 50, 0, 1, 2], atol=1e-12)
    assert series.time.tolist() == [1, 2, 3, 4, 5, 1, 2, 3]
    # Without a time, the rows are what is even.
    series = read(HOLES, **options)
    np.testing.assert_allclose(series.inputs[:, 0], [1, 4, 7, 9, 0, 1, 2], atol=1e-12)
    np.testing.assert_allclose(series.targets[:, 0], [10, 20, 35, 50, 0, 1, 2], atol=1e-12)


def test_times_that_are_not_even_weigh_a_hole(read):
    series = read("t,a\n0,0\n1,\n10,10\n12,20\n17,0\n", time="t", missing="interpolate")
    np.testing.assert_allclose(series.inputs[:, 0], [0, 1, 10, 20, 0], atol=1e-12)
    assert series.time.tolist() == [0, 1, 10, 12, 17]


def test_gaps_of_dates_are_filled_on_the_even_clock(tmp_path):
    whole = [datetime.datetime(2016, 7, 1) + datetime.timedelta(hours=k) for k in range(40)]
    values = np.random.default_rng(0).normal(size=40)
    keep = np.ones(40, bool)
    keep[[5, 6, 20]] = False
    for unit in ("ms", "us", "ns"):
        times = pl.Series("t", whole).dt.cast_time_unit(unit)
        frame = pl.DataFrame({"t": times, "a": values}).filter(pl.Series(keep))
        frame.write_parquet(tmp_path / "data.parquet")
        series = read_series(tmp_path / "data.parquet", time="t", missing="interpolate")
        assert np.array_equal(series.time, times.to_numpy())
        expected = values.copy()
        expected[5:7] = values[4] + (values[7] - values[4]) * np.array([1, 2]) / 3
        expected[20] = (values[19] + values[21]) / 2
        np.testing.assert_allclose(series.inputs[:, 0], expected, atol=1e-12)
        dropped = read_series(tmp_path / "data.parquet", time="t", missing="drop")
        assert np.array_equal(dropped.inputs[:, 0], values[keep])


def days(dates):
    return "t,a\n" + "".join(f"{date},{k}\n" for k, date in enumerate(dates))


def test_months_quarters_and_years_are_no_gaps(read):
    months = [f"{year}-{month:02}-01" for year in (2003, 2004) for month in range(1, 13)]
    for dates in (months, months[::3], [f"{year}-01-01" for year in range(1999, 2009)]):
        series = read(days(dates), time="t")
        assert series.inputs[:, 0].tolist() == list(range(len(dates)))
        assert len(read(days(dates), time="t", missing="interpolate")) == len(dates)
    with pytest.raises(
        SeriesError,
        match=r"time column t has 1 gap, the first between rows 4 and 5: from 2003-04-01 00:00:00 "
        r"to 2003-06-01 00:00:00, where the median step is 31 days: fill in the rows that are",
    ):
        read(days(months[:4] + months[5:]), time="t")


def test_a_gap_is_refused_with_its_place_and_the_options(read):
    with pytest.raises(SeriesError) as error:
        read("t,a\n1,1\n2,1\n3,1\n7,1\n8,1\n10,1\n11,1\n", time="t")
    assert str(error.value).endswith(
        "data.csv: time column t has 2 gaps, the first between rows 3 and 4: from 3 to 7, where "
        "the median step is 1: fill in the rows that are missing, or set `missing` in the "
        'recipe\'s [series] to "interpolate" for filling them in or "drop" for taking the rows as '
        "evenly spaced"
    )
    quarters = [f"2001-01-01 00:{minute}:00" for minute in ("00", "15", "45")]
    with pytest.raises(SeriesError, match=r"where the median step is 0:15:00: fill"):
        read(days([*quarters, "2001-01-01 01:00:00"]), time="t")


def test_the_step_from_one_sequence_to_the_next_is_no_gap(read):
    text = "i,t,a\n" + "".join(f"{i},{100 * i + k},{k}\n" for i in range(3) for k in range(4))
    series = read(text, sequence="i", time="t", inputs=["a"])
    assert series.lengths == (4, 4, 4)
    assert series.time.tolist() == [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203]


def test_a_clock_that_is_not_even_has_no_gaps(read):
    times = np.cumsum(np.random.default_rng(0).exponential(size=200))
    series = read("t,a\n" + "".join(f"{t!r},1\n" for t in times.tolist()), time="t")
    assert np.array_equal(series.time, times)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "t,a\n0,0\n10,1\n20,2\n30,3\n55,4\n65,5\n75,6\n",
            "time column t has gaps, but no even clock to fill them on: from row 4 to row 5 (30 "
            'to 55) are 2.5 median steps, which is no whole number: set `missing` to "drop"',
        ),
        (
            "t,a\n0,0\n1,1\n2,2\n1000000000000,3\n",
            "time column t leaves 999999999997 rows to fill in between 4 that are there, so most "
            "would be made up: correct its times, or",
        ),
        (
            "a,b\n,1\n1,2\n",
            "column a is missing in row 1, at the start of the series, with nothing on its other "
            'side to interpolate from: remove the row, or set `missing` to "drop"',
        ),
        ("a,b\n1,1\n,2\n", "column a is missing in row 2, at the end of the series"),
        ("a,b\n,1\n,2\n", "column a is missing in row 1, at the start of the series"),
        (
            "a,b\n1,1\ninf,2\n,3\n1,1\n",
            "column a has 1 infinite value, the first (inf) in row 2: c",
        ),
    ],
)
def test_what_cannot_be_filled_in(read, text, message):
    time = "t" if text.startswith("t") else None
    with pytest.raises(SeriesError) as error:
        read(text, inputs=["a"], time=time, missing="interpolate")
    assert message in str(error.value)


def test_the_end_of_a_sequence_is_not_filled_from_the_next(read):
    with pytest.raises(SeriesError, match="column a is missing in row 2, at the end of its sequen"):
        read("i,a\nx,1\nx,\ny,3\ny,4\n", inputs=["a"], sequence="i", missing="interpolate")
