"""Series: the same values from every format, splits by time, scaling, and each fault's message."""

import numpy as np
import polars as pl
import pytest

from fastlstm.errors import SeriesError
from fastlstm.train.recipe import load_recipe
from fastlstm.train.series import fit_scaling, generate, load_series, read_series, split

VALUES = np.array([[1.0, 10.0], [2.5, 20.0], [-3.0, 15.0]])


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="data.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return to_file


def test_every_format_gives_the_same_series(tmp_path):
    frame = pl.DataFrame({"a": VALUES[:, 0], "b": VALUES[:, 1]})
    frame.write_csv(tmp_path / "data.csv")
    frame.write_parquet(tmp_path / "data.parquet")
    np.savez(tmp_path / "data.npz", a=VALUES[:, 0], b=VALUES[:, 1])
    np.save(tmp_path / "data.npy", VALUES.astype(np.float32))
    for name in ("data.csv", "data.parquet", "data.npz", "data.npy"):
        columns = ("0", "1") if name.endswith("npy") else ("a", "b")
        series = read_series(tmp_path / name, inputs=columns, targets=columns[1:])
        assert np.array_equal(series.inputs, VALUES)
        assert np.array_equal(series.targets, VALUES[:, 1:])
        assert (series.input_columns, series.target_columns) == (columns, columns[1:])


def test_format_overrides_the_ending(write):
    path = write("a\n1\n2.5\n", "data.txt")
    assert read_series(path, format="csv").inputs[:, 0].tolist() == [1, 2.5]
    with pytest.raises(
        SeriesError, match=r"ending in \.csv, \.parquet, \.npy, \.npz, found '\.txt'"
    ):
        read_series(path)


def test_a_decimal_far_down_is_still_a_number(write):
    path = write("a\n" + "1\n" * 500 + "1.5\n")
    assert read_series(path).inputs[-1, 0] == 1.5


def test_dates_become_the_time_axis(write):
    path = write("day,a\n2001-01-01,1\n2001-01-08,2\n2001-01-15,3\n")
    series = read_series(path, time="day")
    assert series.input_columns == ("a",)
    assert series.time_name == "day"
    assert np.array_equal(np.diff(series.time).astype("timedelta64[D]").astype(int), [7, 7])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "a,b\n1,2\n",
            {"inputs": ["c"]},
            "no column c; this file has a, b: name one of them with --column",
        ),
        ("a\n1\n", {"time": "when"}, "no column when; this file has a: name one"),
        ("a,b\n1,2\n", {}, "expected one column to read, found 2 (a, b): say which is meant"),
        (
            "a\n1\n2\noops\n",
            {},
            "column a is not numeric: row 3 holds 'oops' (String): correct or remove it, or choose",
        ),
        ("", {}, "the series is empty: expected a header and one row for each step"),
        ("a\n", {}, "the series is empty"),
        (
            "a,b\n1,2\n,2\n3,2\n,2\n",
            {"inputs": ["a"]},
            "column a has 2 missing or infinite values, the first (None) in row 2: fill or drop",
        ),
        ("a\n1\nNaN\n", {}, "column a has 1 missing or infinite value, the first (nan) in row 2"),
        (
            "a\n1\n2\ninf\n",
            {},
            "column a has 1 missing or infinite value, the first (inf) in row 3",
        ),
        (
            "a\n1\n1e39\n",
            {},
            "column a has 1 value too large for float32, the first (1e+39) in row 2",
        ),
        ("t,a\n1,1\n3,1\n2,1\n", {"time": "t"}, "time column t must increase from row to row"),
        ("t,a\n1,1\n1,1\n", {"time": "t"}, "time column t must increase"),
        (
            "t,a\n2001-01-01,1\nyesterday,1\n",
            {"time": "t"},
            "time column t: row 2 holds 'yesterday', which is no ISO date such as 2001-12-29",
        ),
        ("a,b\n1,2\n1,2,3,4\n", {"inputs": ["a"]}, "cannot be read as csv: "),
    ],
)
def test_each_fault_of_a_csv_names_the_thing_and_the_remedy(write, text, options, message):
    path = write(text)
    with pytest.raises(SeriesError) as error:
        read_series(path, **options)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_faults_of_other_files(tmp_path):
    with pytest.raises(SeriesError, match=r"absent\.csv: no such file: give .* with --data FILE"):
        read_series(tmp_path / "absent.csv")
    with pytest.raises(SeriesError, match="expected a file, found a folder"):
        read_series(tmp_path)
    for name in ("bad.parquet", "bad.npy", "bad.npz"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(SeriesError, match=f"{name}: cannot be read as {name[4:]}: "):
            read_series(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    with pytest.raises(SeriesError, match=r"objects\.npy: cannot be read as npy: Object arrays"):
        read_series(tmp_path / "objects.npy")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    with pytest.raises(SeriesError, match=r"\(time,\) or \(time, columns\), found \(2, 2, 2\)"):
        read_series(tmp_path / "cube.npy")
    np.savez(tmp_path / "uneven.npz", a=np.zeros(2), b=np.zeros(3))
    with pytest.raises(SeriesError, match="arrays of one length, found a 2, b 3"):
        read_series(tmp_path / "uneven.npz")
    np.save(tmp_path / "empty.npy", np.zeros(0))
    with pytest.raises(SeriesError, match="the series is empty"):
        read_series(tmp_path / "empty.npy")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with pytest.raises(SeriesError, match="column 0 is not numeric: row 1 holds 'a'"):
        read_series(tmp_path / "words.npy")


def recipe_for(path, **overrides):
    return load_recipe("sine", data=path, overrides=overrides)


def test_the_split_is_by_time(write):
    path = write("a\n" + "\n".join(map(str, range(200))) + "\n")
    recipe = recipe_for(path, **{"windows.length": 30})
    parts = split(load_series(recipe.series), recipe)
    assert (parts.train, parts.validation, parts.test) == (140, 170, 200)


def test_a_series_shorter_than_its_window(write):
    recipe = recipe_for(write("a\n" + "1\n2\n" * 50))
    with pytest.raises(
        SeriesError,
        match=r"data: the training part has 70 of the series' 100 samples, shorter than one "
        r"window, which needs 101 \(windows\.length 100 \+ windows\.horizon 1\): give a longer "
        r"series or a smaller windows\.length",
    ):
        split(load_series(recipe.series), recipe)


def test_a_series_too_short_for_its_parts(write):
    recipe = recipe_for(write("a\n1\n2\n3\n"), **{"windows.length": 1, "windows.warm_up": 0})
    with pytest.raises(SeriesError, match="3 samples leave the validation or the test part empty"):
        split(load_series(recipe.series), recipe)


def test_scaling_knows_the_training_part_only(write):
    train = np.random.default_rng(0).normal(50, 7, 140)
    found = []
    for rest in (np.zeros(60), np.full(60, 1e6)):
        values = np.concatenate([train, rest])
        path = write("a\n" + "\n".join(map(repr, values.tolist())) + "\n")
        recipe = recipe_for(path)
        series = load_series(recipe.series)
        found.append(fit_scaling(series, split(series, recipe)))
    for scaling in found:
        assert scaling.input_mean == pytest.approx([train.mean()], abs=1e-12)
        assert scaling.input_deviation == pytest.approx([train.std()], abs=1e-12)
        assert scaling.target_mean == scaling.input_mean
    assert found[0].input_mean == found[1].input_mean
    assert found[0].input_deviation == found[1].input_deviation


def test_a_constant_column_has_no_scale(write):
    path = write("a,b\n" + "".join(f"{k},0.1\n" for k in range(200)))
    recipe = recipe_for(path, **{"series.input": ["a", "b"], "series.target": "a"})
    series = load_series(recipe.series)
    with pytest.raises(SeriesError, match=r"data: column b is constant \(0\.1\) .* 140 samples"):
        fit_scaling(series, split(series, recipe))


def test_the_sine_is_the_formula_plus_seeded_noise():
    options = {"series.generator.noise": 0.0}
    series = generate(load_recipe("sine", overrides=options).series.generator)
    t = np.arange(2000)
    expected = np.sin(2 * np.pi * t / 40) + np.sin(2 * np.pi * t / 17) / 2
    np.testing.assert_allclose(series.inputs[:, 0], expected, atol=1e-12)
    noisy = [generate(load_recipe("sine").series.generator).inputs for _ in range(2)]
    assert np.array_equal(*noisy)
    assert 0.018 < (noisy[0][:, 0] - expected).std() < 0.022


def test_mackey_glass_solves_its_equation():
    options = {"series.generator": {"kind": "mackey_glass", "samples": 600}}
    x = generate(load_recipe("sine", overrides=options).series.generator).inputs[:, 0]
    assert x.shape == (600,)
    # The integral form over one unit, by Simpson's rule on samples two apart.
    t = np.arange(40, 590)

    def slope(k):
        return 0.2 * x[k - 17] / (1 + x[k - 17] ** 10) - 0.1 * x[k]

    moved = (slope(t) + 4 * slope(t + 1) + slope(t + 2)) / 3
    np.testing.assert_allclose(x[t + 2] - x[t], moved, atol=0.01)


def test_the_example_files_are_whole():
    co2, sunspots = (load_series(load_recipe(name).series) for name in ("co2", "sunspots"))
    assert (len(co2), len(sunspots)) == (2284, 309)
    assert set(np.diff(co2.time).astype("timedelta64[D]").astype(int)) == {7}
    assert set(np.diff(sunspots.time)) == {1}
    # First and last figures of the originals.
    assert (co2.inputs[0, 0], co2.inputs[-1, 0]) == (316.1, 371.5)
    assert (sunspots.inputs[0, 0], sunspots.inputs[-1, 0]) == (5.0, 2.9)
