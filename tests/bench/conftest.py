"""A clock that does not look at the time."""

import pytest


class Growing:
    """Each interval between two looks is one nanosecond longer than the one before."""

    def __init__(self):
        self.now, self.step = 0, 1000

    def __call__(self):
        self.step += 1
        self.now += self.step
        return self.now


@pytest.fixture
def growing_clock():
    return Growing()
