"""Start-up: one program in its own process, with its answers, its failures and its end."""

import os
import re
import select
from itertools import count

import numpy as np
import pytest

from fastlstm.bench.startup.processes import ProgramFailed, start

SAMPLES = np.array([[1.0, 2.0], [3.0, -4.0], [0.5, 0.25]], np.float32)
# Adds up what came, each time twice the sum.
RUNNING_SUM = """
import numpy as np

def load(path):
    total = np.full(1, float(open(path).read()), np.float32)
    def step(x):
        total[:] += x.sum()
        return 2 * total
    return step
"""


@pytest.fixture
def run(tmp_path):
    """Start a program of this source on SAMPLES, with 10 as the content of its model file."""
    (tmp_path / "model").write_text("10")
    np.save(tmp_path / "input.npy", SAMPLES)

    def run(source, what="steps", clock=lambda: 0, **options):
        program = tmp_path / "program.py"
        program.write_text(source)
        arguments = (str(tmp_path / "model"), str(tmp_path / "input.npy"), what)
        environment = {"THE_TEST": "is here"}
        return start(program, arguments, environment, clock=clock, **options)

    return run


def test_it_hands_back_the_first_output_and_all_of_them(run):
    answer = run(RUNNING_SUM)
    assert answer.first.tolist() == [26.0]
    assert answer.figures["outputs"] == [[26.0], [24.0], [25.5]]
    assert answer.figures["first_call_ns"] > 0
    assert answer.figures["steps_ns"] > 0


def test_an_output_that_the_next_step_overwrites_is_kept(run):
    source = RUNNING_SUM.replace("return 2 * total", "return total")
    assert run(source).figures["outputs"] == [[13.0], [12.0], [12.75]]


def test_the_time_is_from_before_the_process_to_its_first_line(run):
    # Looks at 0 s and 1 s, and no further ones.
    looks = count(0, 1_000_000_000)
    assert run(RUNNING_SUM, "start", lambda: next(looks)).seconds == 1.0
    assert next(looks) == 2_000_000_000


def test_a_start_alone_takes_one_step(run):
    source = RUNNING_SUM.replace("total[:] +=", "assert x[0] == 1\n        total[:] +=")
    assert set(run(source, "start").figures) == {"first_call_ns"}
    with pytest.raises(ProgramFailed, match=r"^failed: AssertionError"):
        run(source, "steps")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc here")
def test_resident_memory_grows_by_what_a_program_holds(run):
    held = 64 << 20
    lean = run(RUNNING_SUM).figures["resident_bytes"]
    heavy = run(f"import numpy as np\nheld = np.ones({held}, np.uint8)\n" + RUNNING_SUM)
    assert heavy.figures["resident_bytes"] - lean == pytest.approx(held, rel=0.2)


def test_it_says_what_was_imported_and_mapped(run):
    figures = run("import decimal\n" + RUNNING_SUM).figures
    assert {"decimal", "numpy", "program"} <= set(figures["modules"])
    assert "fractions" not in figures["modules"]
    if os.path.exists("/proc/self/maps"):
        assert any("_multiarray_umath" in path for path in figures["libraries"])


def test_what_a_runtime_prints_is_no_answer(run):
    source = "print('a banner', flush=True)\nimport os\nos.write(1, b'{}\\n')\n" + RUNNING_SUM
    assert run(source).first.tolist() == [26.0]


def test_a_program_has_the_environment_and_the_name_of_no_library(run):
    source = """
import os, sys
assert os.environ["THE_TEST"] == "is here"
assert __name__ == "program"
assert os.path.dirname(__file__) not in sys.path
"""
    assert run(source + RUNNING_SUM).first.tolist() == [26.0]


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("raise ValueError('no such\\nfile')", "failed: ValueError: no such file"),
        (
            "def load(path):\n    raise NotImplementedError('no peepholes here')",
            "unsupported: no peepholes here",
        ),
        ("import os\nos.abort()", "failed: its process ended with SIGABRT"),
        (
            "import os, sys\nprint('the last words', file=sys.stderr, flush=True)\nos._exit(3)",
            "failed: its process ended with exit code 3: the last words",
        ),
        # After the first output is out.
        (
            RUNNING_SUM.replace("return 2", "1 / (x[0] - 3)\n        return 2").replace(
                "import numpy as np", "import numpy as np\nnp.seterr(all='raise')"
            ),
            "failed: FloatingPointError: divide by zero encountered in",
        ),
    ],
)
def test_a_program_that_fails_is_a_note(run, source, note):
    with pytest.raises(ProgramFailed, match="^" + re.escape(note)):
        run(source)


def test_a_long_message_is_cut(run):
    with pytest.raises(ProgramFailed) as caught:
        run("raise ValueError('word ' * 1000)")
    assert len(str(caught.value)) < 320


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs os.pidfd_open, of Linux")
def test_a_process_that_hangs_is_ended_with_all_that_it_started(run, tmp_path):
    source = f"""
import os, subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
with open({str(tmp_path / "pids.part")!r}, "w") as file:
    print(os.getpid(), child.pid, file=file)
os.rename({str(tmp_path / "pids.part")!r}, {str(tmp_path / "pids")!r})
threading.Event().wait()
"""
    with pytest.raises(ProgramFailed, match=r"^failed: gave no answer within 3 s and was ended$"):
        run(source, limit_s=3)
    if not (tmp_path / "pids").exists():
        pytest.skip("the machine was too busy to start the process within the limit")
    program, child = map(int, (tmp_path / "pids").read_text().split())
    with pytest.raises(ProcessLookupError):
        os.kill(program, 0)
    assert has_ended(child)


def has_ended(pid):
    """Whether a process that is no child of ours is gone, or ends in the next seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 10)[0])
    finally:
        os.close(handle)
