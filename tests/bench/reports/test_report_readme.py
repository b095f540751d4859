"""The README's section: its cells, its losses, and nothing outside the markers."""

import re
import xml.etree.ElementTree as ET

import pytest

pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("hdrh", reason="hdrhistogram is not installed")

from report_reading import number

import sample_document as sample
from fastlstm.bench.reports import readme
from fastlstm.errors import InputError


def tables_of(text):
    found = []
    for body in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [
            [one.strip() for one in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in body.splitlines()
        ]
        found.append([lines[0], *lines[2:]])
    return found


def test_each_cell_is_the_figure_of_its_row():
    document = sample.ladder()
    rows = {(row.mode, row.contender, row.model): row for row in document.rows}
    bold = set()
    for mode, (header, *lines) in zip(
        document.modes, tables_of(readme.section(document)), strict=True
    ):
        assert header == ["hidden size", "8", "32", "128", "512"]
        assert lines[0][0] == mode.ours
        assert lines[-1][0] == f"*{sample.FLOOR}*"
        for name, *cells in lines:
            name = name.strip("*").replace(" (float64)", "")
            for size, one in zip(header[1:], cells, strict=True):
                row = rows.get((mode.name, name, f"LSTM 1x{size}"))
                if row is None:
                    assert one == "-"
                elif row.ns is None:
                    assert one == "refused <sup>1</sup>"
                elif name == mode.ours:
                    assert one == f"{row.ns.value:,.0f} ns"
                else:
                    assert number(one) == pytest.approx(row.ratio.value, rel=6e-3, abs=0.051)
                    places = len(one.strip("*").partition(".")[2])
                    assert places == (2 if row.ratio.value < 1.995 else 1) or row.ratio.value > 999
                    if one.startswith("**"):
                        bold.add((mode.name, name, size))
    assert bold == {
        ("step", "ONNX Runtime int8", "512"),
        ("sequence", "ONNX Runtime int8", "128"),
        ("sequence", "ONNX Runtime int8", "512"),
        ("sequence", "ONNX Runtime", "512"),
    }


def test_losses_footnotes_machine_noise_and_picture_are_there():
    text = readme.section(sample.ladder())
    assert text.startswith("![Time of LSTM 1xH over hidden sizes from 8 to 512, step and sequence")
    assert "](docs/bench.svg)\n" in text
    assert "](other.svg)\n" in readme.section(sample.ladder(), "other.svg")
    assert text.count("Faster than ours: ONNX Runtime int8") == 2
    assert "ONNX Runtime on LSTM 1x512 (0.9" in text
    reason = "refused: no state \\| between calls \\<opencv\\_dnn> \\& no \\*fix\\*"
    assert f"- <sup>1</sup> OpenCV dnn: {reason}\n" in text
    why = "Not timed: torch cells, torch.compile (unsupported: it takes single steps only).\n"
    assert text.count("Not timed") == text.count(why) == 1
    assert "| torch cells |" not in text.partition("**sequence.**")[2]
    assert "Measured on Some CPU 9000, 2 cores, Linux 6.18 x86\\_64, Python 3.11.7." in text
    assert "load 1.40 after, a fixed loop took up to 31 % longer" in text
    assert "medians over 15 interleaved rounds" in text
    assert "with 95 % confidence" in text
    assert "Versions: numpy 2.4.6, torch 2.13.0+cpu." in text


def test_where_nobody_is_faster_that_is_said():
    text = readme.section(sample.ladder((8, 32)))
    assert text.count("Faster than ours: none.") == 2
    assert not re.search(r"\| \*\*", text)


def test_a_single_model_has_no_section(tmp_path):
    with pytest.raises(InputError, match="plain models of several hidden sizes, found amp & cab"):
        readme.section(sample.audio())
    with pytest.raises(InputError, match="found amp & cab"):
        readme.write_plot(sample.audio(), tmp_path / "bench.svg")


def test_only_what_is_between_the_markers_changes():
    text = f"before\n\n{readme.BEGIN}\nold\n{readme.END}\n\nafter\n"
    once = readme.replace(text, "new\n")
    assert once == f"before\n\n{readme.BEGIN}\nnew\n{readme.END}\n\nafter\n"
    assert readme.replace(once, "new\n") == once


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        readme.BEGIN,
        f"{readme.END} {readme.BEGIN}",
        f"{readme.BEGIN} {readme.BEGIN} {readme.END}",
    ],
)
def test_markers_that_are_not_one_pair_are_refused(text):
    with pytest.raises(InputError, match="expected one line <!-- bench:begin -->"):
        readme.replace(text, "new")


def test_the_picture_has_both_modes_every_contender_and_white_paper(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "bench.svg"
    readme.write_plot(sample.ladder(), path)
    root = ET.fromstring(path.read_text("utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = ["".join(text.itertext()).strip() for text in root.iter() if text.tag.endswith("text")]
    assert {"LSTM 1xH, step", "LSTM 1xH, sequence"} <= set(words)
    for name in (*sample.STEP, *sample.SEQUENCE):
        assert words.count(name.replace("reference", "reference (float64)")) == 1
    assert root[0].attrib == {"width": "100%", "height": "100%", "fill": "#fefefe"}
    assert "var(" not in path.read_text("utf-8")
    again = tmp_path / "again.svg"
    readme.write_plot(sample.ladder.__wrapped__(), again)
    assert again.read_bytes() == path.read_bytes()


def test_where_all_were_refused_the_reasons_are_left(tmp_path):
    document = sample.untimed(sample.ladder((8, 32)))
    text = readme.section(document)
    assert "OpenVINO: refused: \\<all>" in text
    assert [set(line[1:]) for line in tables_of(text)[1][1:2]] == [{"refused <sup>1</sup>"}]
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    readme.write_plot(document, tmp_path / "bench.svg")
    assert ET.parse(tmp_path / "bench.svg").getroot().attrib["role"] == "img"
