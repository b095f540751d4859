"""What a model puts out at chosen rows, against the reference run over each sequence or window."""

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.errors import SeriesError
from fastlstm.model import Difference, Model, Residual
from fastlstm.train import replay
from fastlstm.train.layout import Layout, network_inputs
from fastlstm.train.network import Network
from fastlstm.train.series import Series
from fastlstm.train.split import Segment


def model_of(inputs, outputs, kind="GRU", initial=False):
    return Model((cases.recurrent(kind, inputs, 5, initial=initial), cases.dense(5, outputs)))


def series_of(lengths, inputs=1, known=0, seed=0):
    r = np.random.default_rng(seed)
    time = sum(lengths)
    values = r.standard_normal((time, inputs))
    names = tuple("abcdef"[:inputs])
    return Series(
        "made",
        "",
        values,
        values,
        names,
        names,
        np.arange(time),
        lengths=lengths,
        known=r.standard_normal((time, known)) if known else None,
        known_columns=tuple("xyz"[:known]),
    )


def outputs(model, series, layout):
    """The reference's outputs over every sequence from its beginning; NaN inputs make NaN."""
    x = network_inputs(series, layout).astype(np.float32)
    found, begin = [], 0
    for length in series.lengths:
        here = x[begin : begin + length]
        usable = int(np.isfinite(here).all(1).sum())
        y = np.full((length, model.output_size), np.nan)
        y[:usable] = reference.run(model, here[:usable])
        found.append(y)
        begin += length
    return np.concatenate(found).reshape(-1, *layout.shape)


@pytest.mark.parametrize(
    ("layout", "expected", "last"),
    [
        # The targets at first <= row + ahead < end, in the sequence that begins at begin.
        (Layout(1), [3, 4, 5, 12, 13, 14], [5, 14]),
        (Layout(3), [1, 2, 3, 10, 11, 12], [3, 12]),
        (Layout(3, True), [3, 12], [3, 12]),
        (Layout(0), [4, 5, 6, 13, 14, 15], [6, 15]),
    ],
)
def test_origins_lie_where_all_that_is_forecast_lies_in_the_part(layout, expected, last):
    segments = [Segment(0, 4, 7), Segment(9, 13, 16)]
    assert replay.origins(segments, layout).tolist() == expected
    assert replay.origins(segments, layout, only_last=True).tolist() == last


def test_origins_of_whole_sequences_begin_where_there_is_something_to_go_by():
    segments = [Segment(0, 0, 4), Segment(4, 4, 6)]
    assert replay.origins(segments, Layout(1)).tolist() == [0, 1, 2, 4]
    # Of the same step the first has no naive forecast.
    assert replay.origins(segments, Layout(0)).tolist() == [1, 2, 3, 5]
    assert replay.origins(segments, Layout(2, True)).tolist() == [0, 1]


@pytest.mark.parametrize("chunk", [3, 4096])
@pytest.mark.parametrize("known", [0, 2])
def test_streams_are_those_of_the_reference(monkeypatch, chunk, known):
    monkeypatch.setattr(replay, "CHUNK", chunk)
    layout = Layout(2, True, targets=2, quantiles=(0.1, 0.5, 0.9))
    series = series_of((11, 7, 11, 4, 11), inputs=2, known=known)
    model = model_of(2 + 2 * known, layout.size, initial=True)
    segments = [Segment(b, b + 1, e) for b, e in ((0, 11), (11, 18), (18, 29), (29, 33), (33, 44))]
    rows = replay.origins(segments, layout)
    assert len(rows) == 9 + 5 + 9 + 2 + 9
    found = replay.streamed(model, series, layout, rows)
    expected = outputs(model, series, layout)[rows]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    some = rows[[1, 4, 10, 20]]
    np.testing.assert_allclose(
        replay.streamed(model, series, layout, some),
        outputs(model, series, layout)[some],
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("at_once", [1, 1 << 24])
@pytest.mark.parametrize(
    "layers",
    [
        (cases.recurrent("LSTM", 1, 5), cases.dense(5, 1)),
        (cases.dense(1, 3), cases.recurrent("GRU", 3, 5, initial=True)),
        (Difference(1), cases.recurrent("RNN", 1, 5), cases.dense(5, 1), Residual(3, (0,))),
        (cases.recurrent("GRU", 1, 3), Difference(3), cases.dense(3, 2), cases.dense(2, 1)),
        (cases.dense(1, 2), cases.dense(2, 1)),
    ],
    ids=["head", "none", "residual", "difference", "stateless"],
)
def test_windows_begin_anew_at_each_row(monkeypatch, at_once, layers):
    monkeypatch.setattr(replay, "AT_ONCE", at_once)
    model = Model(layers)
    layout, series = Layout(2, targets=model.output_size), series_of((15, 9))
    rows = np.array([2, 5, 12, 16, 20, 22])
    found = replay.windowed(model, series, layout, rows, 4)
    x = series.inputs.astype(np.float32)
    for k, row in enumerate(rows):
        first = max(row - 3, 0 if row < 15 else 15)  # what the sequence has of the window
        expected = reference.run(model, x[first : row + 1])[-1]
        np.testing.assert_allclose(found[k].ravel(), expected, rtol=0, atol=1e-12)


def test_the_state_at_each_row_goes_on_as_the_stream_does():
    series, model = series_of((14, 8)), model_of(1, 1, "LSTM", initial=True)
    rows = np.array([3, 4, 11, 16, 20])
    network = Network.from_model(model).double()
    y, state = replay.states_at(network, replay.samples(series, Layout(1)), series, rows)
    expected = outputs(model, series, Layout(1))
    np.testing.assert_allclose(y.detach().numpy(), expected[rows, 0, 0], rtol=0, atol=1e-12)
    x = replay.samples(series, Layout(1))
    after, _ = network(x[rows + 1][:, None], state)
    np.testing.assert_allclose(
        after[:, 0].detach().numpy(), expected[rows + 1, 0, 0], rtol=0, atol=1e-12
    )


def test_a_bidirectional_model_forecasts_nothing():
    model = Model((cases.bidirectional("LSTM", 1, 2), cases.dense(4, 1)))
    with pytest.raises(SeriesError, match=r"bidirectional layer.* forecasts nothing"):
        replay.streamed(model, series_of((9,)), Layout(1), np.array([3]))
