"""The batches of training and validation, against a plain loop over windows."""

from itertools import chain

import numpy as np
import pytest
import torch

import runs
from fastlstm.errors import SeriesError
from fastlstm.train import load_recipe
from fastlstm.train.batches import GROUP, Groups, Tracks, Windows
from fastlstm.train.fit import prepared
from fastlstm.train.recipe_tables import Windows as Table
from fastlstm.train.split import Segment

# Two sequences begin before the part, one with it, and one is too short for most windows.
SEGMENTS = (Segment(0, 5, 30), Segment(30, 30, 36), Segment(40, 40, 66), Segment(70, 75, 100))
TABLES = {
    "every step": {"length": 7},
    "stride and warm-up": {"length": 7, "stride": 3, "warm_up": 2},
    "four ahead": {"length": 5, "horizon": 4},
    "the same step": {"length": 5, "horizon": 0},
    "direct": {"length": 5, "horizon": 3, "direct": True},
    "last step": {"length": 7, "loss_at": "last"},
    "last step, direct": {"length": 4, "loss_at": "last", "horizon": 2, "direct": True},
    "whole": {"length": 0},
    "whole, last step": {"length": 0, "loss_at": "last"},
    "whole, warm-up": {"length": 0, "warm_up": 8, "horizon": 2},
}


def by_hand(table):
    """All windows of the segments: the rows that go in, and the rows that loss is taken at."""
    found = []
    for _, first, end in SEGMENTS:
        if table.length == 0:
            rows = list(range(first, end - table.horizon))
            some = [rows] if len(rows) > table.warm_up else []
        else:
            some = []
            for start in range(first, end, table.stride):
                rows = list(range(start, start + table.length))
                if rows[-1] + table.horizon < end:
                    some.append(rows)
        found += [(r, r[-1:] if table.loss_at == "last" else r[table.warm_up :]) for r in some]
    return found


def unpacked(batch):
    """A batch as a list of its windows: (rows, rows that loss is taken at)."""
    if batch.sizes is None:
        rows = batch.rows.tolist()
        return list(zip(rows, [r[batch.scored] for r in rows], strict=True))
    windows = [([], []) for _ in range(int(batch.sizes[0]))]
    scored = set(batch.scored.tolist())
    assert batch.rows[batch.scored].tolist() == batch.origins.tolist()
    place = 0
    for running in batch.sizes.tolist():
        for k in range(running):
            windows[k][0].append(int(batch.rows[place]))
            if place in scored:
                windows[k][1].append(int(batch.rows[place]))
            place += 1
    assert place == len(batch.rows)
    return windows


@pytest.mark.parametrize("name", TABLES)
def test_training_windows_are_those_of_a_plain_loop(name):
    table = Table(**TABLES[name])
    windows, expected = Windows.to_train_on(SEGMENTS, table), by_hand(table)
    assert len(windows) == len(expected)
    # The longest first, where there are several lengths.
    expected.sort(key=lambda window: (-len(window[0]), window[0]))
    assert unpacked(windows.batch(torch.arange(len(windows)))) == expected
    some = torch.arange(0, len(windows), 2)
    shares = [windows.share(k, torch.arange(len(windows))) for k in (some, some[:0])]
    ours = sum(len(by_hand(table)[k][1]) for k in some)
    assert shares == pytest.approx([ours / sum(len(w[1]) for w in expected), 0])


@pytest.mark.parametrize("name", TABLES)
def test_validation_looks_at_every_forecast_inside_the_part_once(name):
    table = Table(**TABLES[name])
    seen = [w for b in Windows.to_look_at(SEGMENTS, table).all_at_once() for w in unpacked(b)]
    if table.length == 0:
        expected = sorted(by_hand(table), key=lambda window: (-len(window[0]), window[0]))
        assert seen == expected
        return
    nearest = 1 if table.direct else table.horizon
    origins = []
    for begin, first, end in SEGMENTS:
        for row in range(begin, end):
            inside = first <= row + nearest and row + table.horizon < end
            # Where a sequence begins with the part, so does the burn-in.
            needs = table.warm_up if first - nearest <= begin else 0
            if table.loss_at == "last":
                needs = table.length - 1
            if inside and row - begin >= needs:
                origins.append(row)
    assert sorted(row for _, scored in seen for row in scored) == origins
    for rows, scored in seen:
        # A window before the part settles the state, as far as the sequence reaches back.
        begin = max(b for b, _, _ in SEGMENTS if b <= scored[0])
        before = scored[0] - rows[0]
        if table.loss_at == "last":
            assert before == table.length - 1
        elif scored[0] - begin != table.warm_up:
            assert before == min(table.length, scored[0] - begin)
        assert rows == list(range(rows[0], scored[-1] + 1))


def test_a_sequence_that_begins_with_the_part_has_its_own_warm_up():
    looks = Windows.to_look_at((Segment(40, 40, 66),), Table(length=7, warm_up=3))
    ((rows, scored),) = unpacked(looks.batch(torch.arange(1)))
    assert (rows[0], scored[0], scored[-1]) == (40, 43, 64)


def test_many_windows_are_looked_at_in_several_batches(monkeypatch):
    monkeypatch.setattr("fastlstm.train.batches.LOOK_AT_ONCE", 20)
    windows = Windows.to_train_on(SEGMENTS, Table(length=7))
    batches = list(windows.all_at_once())
    assert [len(batch.rows) for batch in batches[:-1]] == [2] * (len(batches) - 1)
    assert [w for b in batches for w in unpacked(b)] == by_hand(Table(length=7))


@pytest.fixture
def two_columns(tmp_path):
    """A file of two sequences with two columns each, a ramp and a ramp downwards."""
    t = np.arange(80.0)
    lines = [f"{k // 40},{k},{-2 * k}" for k in t.astype(int)]
    (tmp_path / "ramps.csv").write_text("\n".join(["id,up,down", *lines]) + "\n")
    return tmp_path / "ramps.csv"


@pytest.mark.parametrize("length", [6, 0])
@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)])
def test_values_targets_and_outputs_of_a_direct_forecast_in_their_order(
    two_columns, length, quantiles
):
    outputs = 3 * 2 * max(1, len(quantiles))
    recipe = load_recipe(
        "sine",
        data=two_columns,
        overrides={
            "series.sequence": "id",
            "series.input": ["up"],
            "series.target": ["down", "up"],
            "series.scaling": "divide",
            "series.divisor": 2.0,
            "series.split": {"train": 0.5, "validation": 0.25, "test": 0.25},
            "windows": {"length": length, "horizon": 3, "direct": True, "warm_up": 2},
            "network.layers": [{"kind": "RNN", "hidden_size": outputs}],
            "network.quantiles": list(quantiles),
        },
    )
    task = prepared(recipe)
    seen = 0
    for batch, _ in task.train_dataloader():
        origins, x = batch.origins, task.inputs[batch.rows]
        assert torch.equal(x, batch.rows.unsqueeze(-1) / 2)
        truth = task.future(origins)
        assert truth.shape == (*origins.shape, 3, 2)
        for ahead in range(3):
            assert torch.equal(truth[..., ahead, 0], -(origins + 1.0 + ahead))
            assert torch.equal(truth[..., ahead, 1], (origins + 1 + ahead) / 2)
        y = task.forecasts(batch, x)
        if batch.sizes is None:
            flat = task.network(x)[0][:, batch.scored]
        else:
            flat = task.network.packed(x, batch.sizes)[batch.scored]
        for ahead in range(3):
            for target in range(2):
                for q in range(max(1, len(quantiles))):
                    place = (ahead * 2 + target) * max(1, len(quantiles)) + q
                    assert torch.equal(y[..., ahead, target, q], flat[..., place])
        seen += origins.numel()
    # 20 training steps of each sequence, of which the last 3 are only forecast.
    each = sum(6 - 2 for _ in range(0, 20 - 6 - 3 + 1, recipe.windows.stride))
    assert seen == 2 * (each if length else 20 - 3 - 2)


def epochs(recipe, count):
    """The window starts of the first epochs, batch by batch."""
    task, found = prepared(recipe), []
    for epoch in range(count):
        type(task).current_epoch, before = property(lambda _, e=epoch: e), type(task).current_epoch
        try:
            found.append([b.rows[:, 0].tolist() for b, _ in task.train_dataloader()])
        finally:
            type(task).current_epoch = before
    return found


def test_groups_are_the_batches_in_their_order():
    """64 windows by threes: 22 batches, of which the second group has what is left."""
    batches = prepared(runs.small(**{"training.batch_size": 3})).batches
    groups = Groups(batches)
    found = [[b.rows[:, 0].tolist() for b, _ in group] for group in groups]
    assert [len(group) for group in found] == [GROUP, 22 - GROUP]
    assert len(groups) == 2
    assert list(chain(*found)) == [b.rows[:, 0].tolist() for b, _ in batches]


def test_an_epoch_sees_each_window_once_in_an_order_of_its_own():
    recipe = runs.small()
    one, two = epochs(recipe, 2)
    assert sorted(chain(*one)) == sorted(chain(*two)) == list(range(0, 190, 3))
    assert [len(batch) for batch in one] == [32, 32]
    assert one != two
    assert epochs(recipe, 2) == [one, two]
    assert epochs(runs.small(**{"training.seed": 1}), 1) != [one]


def test_steps_per_epoch_go_on_through_several_orders():
    """Seven batches of at most 20 of 64 windows: 20, 20, 20, 4, then anew."""
    recipe = runs.small(**{"training.steps_per_epoch": 7, "training.batch_size": 20})
    ((*batches,),) = epochs(recipe, 1)
    assert [len(batch) for batch in batches] == [20, 20, 20, 4, 20, 20, 20]
    assert sorted(chain(*batches[:4])) == list(range(0, 190, 3))
    assert len(set(chain(*batches[4:]))) == 60
    assert batches[4] != batches[0]


def walked(tracks, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(b.rows, b.scored, fresh) for b, fresh in tracks.batches(generator)]


def test_stretches_of_one_series_follow_on_window_by_window():
    """Of 100 rows and 99 origins three stretches of 33, and of each four windows of 7."""
    tracks = Tracks((Segment(0, 10, 110),), Table(length=7, stateful=True, warm_up=2), 3)
    steps = walked(tracks)
    assert len(steps) == len(tracks) == 4
    shift = int(steps[0][0][0, 0]) - 10
    assert 0 <= shift <= 33 - 28
    for k, (rows, scored, fresh) in enumerate(steps):
        starts = torch.tensor([10, 43, 76]) + shift + 7 * k
        assert torch.equal(rows, starts[:, None] + torch.arange(7))
        assert fresh == (k == 0)
        # Only where a stretch begins is the state still settling.
        assert scored == slice(2 if k == 0 else 0, None)
    shifts = {int(walked(tracks, seed)[0][0][0, 0]) - 10 for seed in range(60)}
    assert shifts == set(range(6))


def test_of_many_sequences_those_of_like_lengths_go_side_by_side():
    """Each to the end of the shorter of its two; the one that is shorter than a window not."""
    segments = (Segment(0, 0, 15), Segment(20, 20, 61), Segment(70, 70, 74), Segment(80, 80, 115))
    tracks = Tracks((*segments, Segment(200, 200, 216)), Table(length=5, stateful=True), 2)
    steps = walked(tracks)
    assert [rows.shape for rows, _, _ in steps] == [(2, 5)] * (6 + 2)
    assert [fresh for _, _, fresh in steps] == [k in (0, 6) for k in range(8)]
    long, short = steps[0][0][:, 0].tolist(), steps[6][0][:, 0].tolist()
    assert long[1] - long[0] == 60
    assert 20 <= long[0] <= 20 + 34 - 30
    assert short[0] - short[1] == 200
    assert 200 <= short[0] <= 200 + 14 - 10
    assert len(tracks) == 8


def test_stretches_shorter_than_a_window_are_refused_before_anything_is_written(tmp_path):
    recipe = runs.small(
        **{"windows.stateful": True, "windows.stride": 1, "training.batch_size": 30}
    )
    with pytest.raises(
        SeriesError, match=r"30 stretches of 6 .* windows\.length 20: .*smaller training\.batch_siz"
    ):
        runs.quick(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["every step", "direct", "whole", "whole, last step"])
def test_a_value_for_each_window_reaches_all_its_inputs_and_truths(name):
    """Told from the rows: whose window each belongs to, stacked or packed."""
    table = Table(**TABLES[name])
    windows = Windows.to_train_on(SEGMENTS, table)
    batch = windows.batch(torch.arange(len(windows)))
    order = torch.argsort(windows.lengths, descending=True, stable=True)
    starts = windows.starts if batch.sizes is None else windows.starts[order]
    into, out = batch.of_windows(starts.double())
    assert batch.windows == len(windows)
    if batch.sizes is None:
        assert (into.shape, out.shape) == ((len(windows), 1, 1), (len(windows), 1, 1, 1))
        np.testing.assert_array_equal(into[:, 0, 0], batch.rows[:, 0])
        np.testing.assert_array_equal(out.flatten(), batch.rows[:, 0])
        return
    first = {row: begin for _, begin, end in SEGMENTS for row in range(begin, end)}
    np.testing.assert_array_equal(into[:, 0], [first[row] for row in batch.rows.tolist()])
    np.testing.assert_array_equal(out[:, 0, 0], [first[row] for row in batch.origins.tolist()])
