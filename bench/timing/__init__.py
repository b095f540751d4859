"""How sessions are driven and timed: turns, rounds, schedules, percentiles, intervals, noise."""
