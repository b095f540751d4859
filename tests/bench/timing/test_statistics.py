"""Intervals hold what they say as often as they say; percentiles have the calls they need."""

import numpy as np
import pytest

from fastlstm.bench.timing import histogram
from fastlstm.bench.timing.statistics import (
    coverage,
    interval_ranks,
    least_samples,
    median_interval,
)


def test_the_ranks_are_those_of_published_tables():
    # Two-sided 95 % intervals of a median, as tables of order statistics give them: n, low, high.
    for count, low, high in ((6, 1, 6), (10, 2, 9), (15, 4, 12), (20, 6, 15), (30, 10, 21)):
        assert interval_ranks(count, 0.5, 0.95) == (low, high)
    assert interval_ranks(5, 0.5, 0.95) is None


def test_a_median_and_its_interval():
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 7.0, 6.0, 9.0, 8.0, 10.0]
    assert median_interval(values) == (5.5, 2.0, 9.0)
    assert median_interval([3.0, 1.0]) == (2.0, 1.0, 3.0)
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert coverage(5) == pytest.approx(0.9375)
    with pytest.raises(ValueError, match="at least one value"):
        median_interval([])


@pytest.mark.parametrize(("count", "quantile"), [(15, 0.5), (400, 0.99), (4000, 0.999)])
def test_an_interval_holds_the_true_value_as_often_as_it_says(count, quantile):
    rng = np.random.default_rng(count)
    low, high = interval_ranks(count, quantile, 0.95)
    true = -np.log1p(-quantile)  # of the exponential distribution
    trials = 4000
    draws = np.sort(rng.exponential(size=(trials, count)), axis=1)
    held = ((draws[:, low - 1] <= true) & (true <= draws[:, high - 1])).mean()
    # At least 95 %, with the deviation that so many trials have; ranks are whole, so more is usual.
    assert 0.95 - 3 * (0.05 * 0.95 / trials) ** 0.5 < held < 0.99


def test_the_fewest_calls_of_each_percentile():
    assert [least_samples(q) for q in (0.5, 0.9, 0.99, 0.999)] == [6, 36, 368, 3688]
    for quantile in (0.5, 0.9, 0.99, 0.999):
        fewest = least_samples(quantile)
        assert interval_ranks(fewest, quantile, 0.95) is not None
        assert interval_ranks(fewest - 1, quantile, 0.95) is None


def test_percentiles_are_left_out_where_calls_are_too_few():
    latency = histogram.latency_of([np.arange(1, 251), np.arange(251, 401)])
    assert latency.samples == 400
    assert [p.percent for p in latency.percentiles] == [50, 90, 99]
    assert [p.ns for p in latency.percentiles] == [200, 360, 396]
    assert latency.max_ns == 400
    assert all(p.low <= p.ns <= p.high for p in latency.percentiles)
    few = histogram.latency_of([np.array([7, 9])])
    assert (few.percentiles, few.max_ns) == ((), 9)
    with pytest.raises(ValueError, match="at least one call"):
        histogram.latency_of([])


def test_a_percentile_is_a_call_that_was_measured():
    calls = np.array([100] * 9_980 + [300] * 15 + [5_000] * 5)
    by_percent = {p.percent: p.ns for p in histogram.latency_of([calls]).percentiles}
    assert by_percent == {50: 100, 90: 100, 99: 100, 99.9: 300}


def test_the_histogram_is_the_standard_one():
    from hdrh.histogram import HdrHistogram

    calls = np.random.default_rng(3).lognormal(7, 1, 20_000).astype(np.int64)
    text = histogram.latency_of([calls]).histogram
    assert text.startswith("HISTFAAA")  # the cookie of V2, compressed
    read = HdrHistogram.decode(text)
    assert read.get_total_count() == len(calls)
    ordered = np.sort(calls)
    for percent, rank in ((50, 10_000), (90, 18_000), (99, 19_800), (99.9, 19_980), (100, 20_000)):
        exact = ordered[rank - 1]
        assert read.get_value_at_percentile(percent) == pytest.approx(exact, rel=1e-3)
    # A second machine's calls can be added to it.
    both = histogram.decode(text)
    both.add(histogram.decode(histogram.encode(np.array([10**12, 0]))))
    assert both.get_total_count() == len(calls) + 2


def test_without_the_library_the_extra_is_named(monkeypatch):
    import sys

    from fastlstm.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(MissingExtraError, match=r"fastlstm\[bench\]"):
        histogram.encode(np.array([1]))
