"""Series: the same values from every format, many sequences, and each fault's message."""

import numpy as np
import polars as pl
import pytest

from fastlstm.errors import SeriesError
from fastlstm.train.recipe import load_recipe
from fastlstm.train.recipe_tables import SeriesTable
from fastlstm.train.series import load_series, read_series

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
            "column a has 2 missing or infinite values, the first (None) in row 2: fill or drop "
            'them before training, or set `missing` in the recipe\'s [series] to "drop" for '
            'leaving out such rows or "interpolate" for filling them in',
        ),
        ("a\n1\nNaN\n", {}, "column a has 1 missing or infinite value, the first (nan) in row 2"),
        (
            "a\n1\n2\ninf\n",
            {},
            "column a has 1 missing or infinite value, the first (inf) in row 3: correct them",
        ),
        (
            "a\n1\n1e39\n",
            {},
            "column a has 1 value too large for float32, the first (1e+39) in row 2",
        ),
        (
            "t,a\n1,1\n3,1\n2,1\n",
            {"time": "t"},
            "time column t must increase from row to row, with no empty row in it; row 3 holds 2 "
            "after 3: sort the file by it and remove doubled or empty rows",
        ),
        ("t,a\n1,1\n1,1\n", {"time": "t"}, "time column t must increase"),
        (
            "t,a\n2001-01-01,1\n,1\n",
            {"time": "t"},
            "time column t must increase from row to row, with no empty row in it; row 2 holds "
            "None after 2001-01-01 00:00:00: sort",
        ),
        (
            "t,a\n2001-01-01,1\nyesterday,1\n",
            {"time": "t"},
            "time column t: row 2 holds 'yesterday', which is no ISO date such as 2001-12-29",
        ),
        ("a,b\n1,2\n1,2,3,4\n", {"inputs": ["a"]}, "cannot be read as csv: "),
        (
            "1,2\n1,2,3,4\n",
            {"inputs": ["1"]},
            '; where each line is a sequence of its own, set layout = "lines" in the recipe\'s',
        ),
        (
            "t,i,k,a\n1,1,1,1\n",
            {"time": "t", "sequence": "s"},
            "no column s; this file has t, i, k, a: name one",
        ),
        (
            "t,i,k,a\n1,1,1,1\n",
            {"time": "t", "sequence": "i"},
            "expected one column to read, found 2 (k, a): say which",
        ),
        (
            "i,a\nx,1\n,2\n",
            {"sequence": "i"},
            "sequence column i is empty in row 2: each row must say which sequence it belongs to",
        ),
        (
            "i,a\nx,1\nx,2\ny,1\nx,2\n",
            {"sequence": "i"},
            "sequence column i: row 4 belongs to x, which begins in row 1 and had ended: the rows "
            "of one sequence must lie together; sort the file by i, each in its order of time",
        ),
        (
            "i,t,a\n7,1,1\n8,1,2\n8,2,1\n7,2,2\n",
            {"sequence": "i", "time": "t"},
            "row 4 belongs to 7, which begins in row 1 and had ended: the rows of one sequence "
            "must lie together; sort the file by i and t",
        ),
        (
            "i,t,a\n7,1,1\n7,2,2\n8,1,1\n8,1,2\n",
            {"sequence": "i", "time": "t"},
            "time column t must increase from row to row of a sequence, with no empty row in it; "
            "row 4 holds 1 after 1: sort",
        ),
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
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2, 2)))
    with pytest.raises(
        SeriesError,
        match=r"\(time,\), \(time, columns\) or \(sequences, time, columns\), found \(2, 2, 2, 2\)",
    ):
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


def test_the_example_files_are_whole():
    co2, sunspots = (load_series(load_recipe(name).series) for name in ("co2", "sunspots"))
    assert (len(co2), len(sunspots)) == (2284, 309)
    assert set(np.diff(co2.time).astype("timedelta64[D]").astype(int)) == {7}
    assert set(np.diff(sunspots.time)) == {1}
    # First and last figures of the originals.
    assert (co2.inputs[0, 0], co2.inputs[-1, 0]) == (316.1, 371.5)
    assert (sunspots.inputs[0, 0], sunspots.inputs[-1, 0]) == (5.0, 2.9)


def test_each_id_is_a_sequence(tmp_path):
    frame = pl.DataFrame(
        {
            "id": ["b", "b", "b", "a", "a", "c"],
            "t": [1, 2, 3, 1, 2, 9],
            "x": [1.0, 2, 3, 4, 5, 6],
            "y": [6.0, 5, 4, 3, 2, 1],
            "hour": [0, 1, 2, 3, 4, 5],
        }
    )
    frame.write_csv(tmp_path / "data.csv")
    frame.write_parquet(tmp_path / "data.parquet")
    for name in ("data.csv", "data.parquet"):
        table = SeriesTable(
            path=str(tmp_path / name),
            sequence="id",
            time="t",
            input=("x", "y"),
            target="y",
            known_ahead=("hour",),
        )
        series = load_series(table)
        assert series.lengths == (3, 2, 1)
        assert series.inputs.tolist() == [[1, 6], [2, 5], [3, 4], [4, 3], [5, 2], [6, 1]]
        assert series.targets[:, 0].tolist() == [6, 5, 4, 3, 2, 1]
        assert series.known[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert (series.known_columns, series.time_name) == (("hour",), "t")
        assert series.time.tolist() == [1, 2, 3, 1, 2, 9]
    # The one column there is beside time, ids and what is known.
    frame.drop("y").write_csv(tmp_path / "data.csv")
    series = read_series(tmp_path / "data.csv", sequence="id", time="t", known=["hour"])
    assert series.input_columns == series.target_columns == ("x",)
    # Without a time, each sequence counts its own steps.
    series = read_series(tmp_path / "data.csv", sequence="id", inputs=["x"])
    assert series.time.tolist() == [0, 1, 2, 0, 1, 0]


def test_an_array_of_several_sequences(tmp_path):
    cube = np.random.default_rng(0).normal(size=(4, 5, 3))
    np.save(tmp_path / "cube.npy", cube)
    series = read_series(tmp_path / "cube.npy", inputs=["0", "2"], targets=["1"])
    assert series.lengths == (5, 5, 5, 5)
    assert np.array_equal(series.inputs.reshape(4, 5, 2), cube[:, :, [0, 2]])
    assert np.array_equal(series.targets.reshape(4, 5, 1), cube[:, :, 1:2])
    with pytest.raises(SeriesError, match=r"which sequence a row belongs to, found sequence = '0'"):
        read_series(tmp_path / "cube.npy", inputs=["1"], sequence="0")


def test_each_line_is_a_sequence(write):
    path = write("\ufeff1,2.5,-3\n\n 4 , 5e1\n   \n6,7,8,9\r\n", "balls.csv")
    series = read_series(path, layout="lines")
    assert series.lengths == (3, 2, 4)
    assert series.inputs[:, 0].tolist() == [1, 2.5, -3, 4, 50, 6, 7, 8, 9]
    assert series.targets is series.inputs
    assert series.input_columns == series.target_columns == ("balls",)
    assert series.time.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    named = load_series(SeriesTable(path=str(path), layout="lines", input="position", name="B"))
    assert named.target_columns == ("position",)
    assert named.name == "B"
    # Another ending is no hindrance: a text file is read as CSV.
    assert read_series(write("1,2\n", "data.txt"), layout="lines").lengths == (2,)


def test_ten_thousand_lines_of_any_length(write):
    lengths = np.random.default_rng(0).integers(2, 11, 10_000)
    values = np.random.default_rng(1).integers(-99, 99, lengths.sum())
    pieces = np.split(values, np.cumsum(lengths)[:-1])
    path = write("".join(",".join(map(str, piece)) + "\n" for piece in pieces))
    series = read_series(path, layout="lines")
    assert series.lengths == tuple(lengths)
    assert np.array_equal(series.inputs[:, 0], values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1,2\n\n3,4,oops,5\n",
            "line 3: expected finite numbers with commas between them, found 'oops' in place 3: "
            'correct or remove the line (there is no header where layout = "lines")',
        ),
        ("x,y\n1,2\n", "line 1: expected finite numbers with commas between them, found 'x' in pl"),
        (
            "1,2\n3,4,\n",
            "line 2: expected finite numbers with commas between them, found nothing i",
        ),
        ("1,nan\n", "line 1: expected finite numbers with commas between them, found 'nan' in pla"),
        ("1,2\n1,-inf\n", "line 2: expected finite numbers with commas between them, found '-inf'"),
        ("1,1_000\n", "line 1: expected finite numbers with commas between them, found '1_000'"),
        ("1;2;3\n", "line 1: expected finite numbers with commas between them, found '1;2;3' in p"),
        (
            "1,2\n\n\n7\n",
            "line 4: expected at least 2 numbers, one to predict another from, found 1: remove",
        ),
        ("1,1e39\n", "column data has 1 value too large for float32, the first (1e+39) in row 2"),
        ("", "the file is empty: expected one sequence in each line"),
        ("\n  \n", "the file is empty: expected one sequence in each line"),
    ],
)
def test_each_fault_of_a_line_names_the_line(write, text, message):
    path = write(text)
    with pytest.raises(SeriesError) as error:
        read_series(path, layout="lines")
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_lines_have_one_column_and_nothing_beside_it(write, tmp_path):
    path = write("1,2\n3,4\n")
    for options in (
        {"inputs": ["a", "b"]},
        {"inputs": ["a"], "targets": ["b"]},
        {"time": "t"},
        {"sequence": "s"},
        {"known": ["hour"]},
    ):
        with pytest.raises(SeriesError, match='layout = "lines" has one column, which is both'):
            read_series(path, layout="lines", **options)
    for name in ("a.npy", "a.parquet"):
        write("1,2\n", name)
        with pytest.raises(SeriesError, match=r'expected a CSV file, found .*layout = "lines" is'):
            read_series(tmp_path / name, layout="lines")
    with pytest.raises(SeriesError, match=r"absent\.csv: no such file"):
        read_series(tmp_path / "absent.csv", layout="lines")
    (tmp_path / "latin.csv").write_bytes(b"1,2\n\xff\xfe\n")
    with pytest.raises(SeriesError, match=r"latin\.csv: cannot be read as csv: 'utf-8' codec"):
        read_series(tmp_path / "latin.csv", layout="lines")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pl.Series([1, 2, 3, 5], dtype=pl.UInt8), [1, 2, 3, 4, 5]),
        (pl.Series([0.5, 1.0, 1.5, 2.5], dtype=pl.Float32), [0.5, 1, 1.5, 2, 2.5]),
        (pl.Series([1, 2, 3, 5]).cast(pl.Duration("us")), None),
        (pl.Series([10**9, 2 * 10**9, 3 * 10**9, 5 * 10**9]).cast(pl.Time), None),
        (pl.Series([-1, 0, 1, 3], dtype=pl.Int32).cast(pl.Date), None),
    ],
)
def test_times_of_any_type_have_their_gaps_filled(tmp_path, times, expected):
    pl.DataFrame({"t": times, "a": [1.0, 2, 3, 5]}).write_parquet(tmp_path / "data.parquet")
    series = read_series(tmp_path / "data.parquet", time="t", missing="interpolate")
    np.testing.assert_allclose(series.inputs[:, 0], [1, 2, 3, 4, 5], atol=1e-12)
    if expected is None:
        assert len(set(np.diff(series.time))) == 1
    else:
        assert series.time.tolist() == expected
    with pytest.raises(SeriesError, match="has 1 gap, the first between rows 3 and 4: from"):
        read_series(tmp_path / "data.parquet", time="t")


def test_a_time_that_is_none(tmp_path):
    frame = pl.DataFrame({"t": [True, False], "a": [1.0, 2.0]})
    frame.write_parquet(tmp_path / "data.parquet")
    with pytest.raises(
        SeriesError, match="time column t: expected numbers or dates, found Boolean"
    ):
        read_series(tmp_path / "data.parquet", time="t")
