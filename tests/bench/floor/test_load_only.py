"""The floor's loop reads every weight exactly once a pass, or it would be no floor."""

import numpy as np
import pytest

from fastlstm.bench.floor.load_only import BACK_AND_FORTH, FORWARD, Way, load_only
from fastlstm.kernels.packing import aligned

WAYS = [*FORWARD, BACK_AND_FORTH, Way("odd", 3), Way("one", 1, turning=True)]


def whole_numbers(size):
    """Values whose sums are exact in float32, so that one read twice or not at all shows."""
    buffer = aligned(size)
    buffer[:] = np.random.default_rng(size).integers(-50, 50, size)
    return buffer


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
# In cache lines: less than any block, whole blocks, and every kind of rest.
@pytest.mark.parametrize("lines", [1, 3, 5, 16, 17, 20, 22, 64, 71, 161])
def test_every_value_is_read_once_a_pass(way, lines):
    weights = whole_numbers(16 * lines)
    before = weights.copy()
    for passes in (0, 1, 2, 3):
        assert load_only(way, weights, passes) == passes * weights.sum(dtype=np.float64)
    assert (weights == before).all()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_sum_of_any_weights_is_near_their_own(way):
    weights = aligned(16 * 1003)
    weights[:] = np.random.default_rng(0).standard_normal(len(weights))
    assert load_only(way, weights, 1) == pytest.approx(weights.sum(dtype=np.float64), abs=0.01)


@pytest.mark.parametrize(
    "buffer", [aligned(32)[1:17], aligned(32)[:20], aligned(0), aligned(64)[::2]]
)
def test_what_is_no_whole_cache_lines_is_refused(buffer):
    with pytest.raises(ValueError, match="expected whole cache lines of packed weights, found"):
        load_only(FORWARD[0], buffer, 1)
