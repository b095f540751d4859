"""A program for test_pipe_contender.py that computes 2 x + 1 and has the fault that it is told.

By its own clock, which is not the time, a call takes 10 ns, and one of a schedule stalls.
"""

import os
import subprocess
import sys

CALL_NS = 10
# The call of a schedule that stalls, and for how long.
STALL, STALL_NS = 2, 450
FIELDS = {
    "protocol": "1",
    "name": "double and one",
    "version": "7",
    "precision": "float32",
    "format": "safetensors",
    "can": "step run batch",
    "configuration": "a fake",
    "later": "a field of a later version",
}

fault = sys.argv[1]
if fault.startswith("hello:"):
    changed, _, value = fault.removeprefix("hello:").partition("=")
    FIELDS[changed] = value


def outputs(words):
    y = [2 * float(word) + 1 for word in words]
    return [round(v, 1) for v in y] if FIELDS["precision"] == "int8" else y


def rows_of(values, width):
    return [values[k : k + width] for k in range(0, len(values), width)]


def text(values):
    return " ".join(f"{value:.9g}" for value in values)


def turn(times, rows, total=""):
    last, sums = rows[-1], [sum(column) for column in zip(*rows, strict=True)]
    if fault == "stale":
        last = [v + 0.001 for v in last]
    if fault == "empty loop":
        sums = [0.0] * len(sums)
    if fault == "not a number":
        last = [float("nan")] * len(last)
    if fault == "few sums":
        sums = []
    calls = "" if fault == "no times" else "\tcalls=" + " ".join(map(str, times))
    return f"ok{total}{calls}\tlast={text(last)}\tsum={text(sums)}"


def latenesses(due):
    now, late = 0, []
    for k, moment in enumerate(due):
        begin = max(now, moment)
        now = begin + (STALL_NS if k == STALL else CALL_NS)
        late.append(now - (begin if fault == "from its begin" else moment))
        if fault == "a second late" and k == 1:
            return [late[0], 1_000_000_001]
    return late


def hello(rest):
    return "ok" + "".join(f"\t{k}={v}" for k, v in FIELDS.items() if v != "-")


def load(path):
    with open(path, "rb") as file:
        data = file.read()
    if copy := os.environ.get("COPY"):
        with open(copy, "wb") as file:
            file.write(data)
    return {"too wide": "unsupported it is  too wide", "sizes": "ok 1 2"}.get(fault, "ok 1 1")


def step(rest):
    if fault == "dies":
        sys.stderr.write("first words\nlast words\n")
        sys.exit(3)
    if fault == "killed":
        os.kill(os.getpid(), 9)
    answers = {
        "error": "error out of\tluck",
        "nonsense": "0.5 0.25",
        "words": "ok one",
        "too many": "ok 1 2",
        "endless": "ok " + "1" * 100_000,
    }
    return answers.get(fault) or "ok " + text(outputs(rest.split()))


def run(rest):
    return "ok " + text(outputs(rest.split()[1:]))


def time_steps(rest):
    _, singles, steps, *x = rest.split()
    assert len(x) == int(steps)
    y = outputs(x + [x[k % len(x)] for k in range(int(singles))])
    total = {"frozen clock": 0, "fast clock": 10**15}.get(fault, CALL_NS * len(x))
    return turn([CALL_NS] * int(singles), rows_of(y, 1), f"\ttotal={total}")


def time_sequences(rest):
    _, calls, steps, *x = rest.split()
    assert len(x) == int(steps)
    return turn([CALL_NS * len(x)] * int(calls), rows_of(outputs(x) * int(calls), 1))


def time_scheduled(rest):
    _, calls, block, *numbers = rest.split()
    due, x = numbers[: int(calls)], numbers[int(calls) :]
    assert len(x) == int(calls) * int(block)
    late = latenesses(map(int, due))
    return turn(late, rows_of(outputs(x[: len(late) * int(block)]), 1))


def time_batches(rest):
    _, streams, steps, *x = rest.split()
    assert len(x) == int(steps) * int(streams)
    return turn([CALL_NS] * int(steps), rows_of(outputs(x), int(streams)))


def ping(rest):
    return "ok\nok" if fault == "two lines" else "ok"


ANSWERS = {
    "hello": hello,
    "load": load,
    "ping": ping,
    "step": step,
    "batch": step,
    "run": run,
    "time-steps": time_steps,
    "time-sequences": time_sequences,
    "time-scheduled": time_scheduled,
    "time-batches": time_batches,
}


def main():
    if fault == "family":
        child = subprocess.Popen(["sleep", "1000"])
        sys.stderr.write(f"{child.pid}\n")
        sys.stderr.flush()
    if fault == "closes its output":
        os.close(1)
    for line in sys.stdin:
        request, _, rest = line.strip().partition(" ")
        if fault == "silent":
            continue
        sys.stdout.write(ANSWERS.get(request, lambda rest: "ok")(rest) + "\n")
        sys.stdout.flush()
        if request == "quit" and fault != "stays":
            break


main()
