"""The machine's description: read from files as Linux writes them, and silent on who owns it."""

import json
import os
import platform
import sys

import pytest

from fastlstm.bench import machine

CPU = "/sys/devices/system/cpu"
CPUINFO = """\
processor\t: 0
model name\t: Some CPU @ 3.00GHz
cpu MHz\t\t: 2999.9
flags\t\t: fpu sse2 avx2 hypervisor lm

processor\t: 1
model name\t: Another CPU
cpu MHz\t\t: 1200.0
"""


def cache(index, level, kind, size):
    folder = f"{CPU}/cpu2/cache/index{index}"
    return {f"{folder}/level": level, f"{folder}/type": kind, f"{folder}/size": size}


FILES = {
    "/proc/cpuinfo": CPUINFO,
    "/sys/fs/cgroup/cpu.max": "150000 100000",
    "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet",
    f"{CPU}/cpu2/topology/thread_siblings_list": "2,6",
    f"{CPU}/cpu3/topology/thread_siblings_list": "3",
    f"{CPU}/cpu6/topology/thread_siblings_list": "2,6",
    f"{CPU}/cpu2/cpufreq/scaling_governor": "powersave",
    f"{CPU}/cpu2/cpufreq/scaling_cur_freq": "3600123",
    f"{CPU}/cpu2/cpufreq/cpuinfo_min_freq": "800000",
    f"{CPU}/cpu2/cpufreq/cpuinfo_max_freq": "4200000",
    f"{CPU}/intel_pstate/no_turbo": "0",
    **cache(0, "1", "Data", "48K"),
    **cache(1, "1", "Instruction", "32K"),
    **cache(2, "2", "Unified", "1280K"),
    **cache(3, "3", "Unified", "266240K"),
}


@pytest.fixture
def described(monkeypatch):
    """Describe a machine of these files, on which this process may use cores 2, 3 and 6."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {6, 2, 3}, raising=False)

    def describe(changed=(), **options):
        files = {**FILES, **dict(changed)}
        return machine.describe(files.get, **{"environment": {}, **options})

    return describe


def test_everything_is_as_the_files_say(described):
    found = described()
    assert found["processor"] == "Some CPU @ 3.00GHz"
    assert found["cores_allowed"] == [2, 3, 6]
    assert found["smt_siblings"] == ["2,6"]
    assert found["cpu_quota"] == 1.5
    assert found["caches"] == "L1d 48 KiB, L2 1.25 MiB, L3 260 MiB"
    assert found["governor"] == "powersave"
    assert found["frequency_mhz"] == {"current": 3600, "minimum": 800, "maximum": 4200}
    assert found["turbo"] is True
    assert found["hypervisor"] is True
    assert found["transparent_huge_pages"] == "madvise"
    assert found["timer"]["source"] == "hpet"


@pytest.mark.parametrize(
    ("path", "text", "key", "expected"),
    [
        ("/proc/cpuinfo", CPUINFO.replace(" hypervisor", ""), "hypervisor", False),
        ("/proc/cpuinfo", "model name : Arm", "hypervisor", None),
        ("/sys/fs/cgroup/cpu.max", "max 100000", "cpu_quota", None),
        (f"{CPU}/intel_pstate/no_turbo", "1", "turbo", False),
        (f"{CPU}/cpufreq/boost", "0", "turbo", False),
        (f"{CPU}/cpu3/topology/thread_siblings_list", None, "smt_siblings", None),
        (f"{CPU}/cpu2/cache/index0/size", "?", "caches", None),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise", "transparent_huge_pages", None),
    ],
)
def test_one_file_tells_another_story(described, path, text, key, expected):
    assert described({path: text})[key] == expected


def test_without_cpufreq_there_is_the_nominal_frequency(described):
    gone = {f"{CPU}/cpu2/cpufreq/{name}": None for name in ("scaling_cur_freq", "cpuinfo_max_freq")}
    assert described(gone)["frequency_mhz"] == {"current": 3000, "minimum": 800, "maximum": None}


def test_a_system_without_any_of_it_is_described_all_the_same(monkeypatch):
    for name in ("sched_getaffinity", "getloadavg", "sysconf"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    found = machine.describe(lambda path: None, {})
    unknown = {name for name, value in found.items() if value is None}
    assert unknown >= {
        *("cores_allowed", "cpu_quota", "smt_siblings", "caches", "governor", "turbo"),
        *("hypervisor", "memory_bytes", "transparent_huge_pages", "load_average"),
        *("load_averages", "torch_threads"),
    }
    assert found["frequency_mhz"] == dict.fromkeys(("current", "minimum", "maximum"))
    assert found["timer"]["source"] is None
    assert found["processor"] == (platform.processor() or platform.machine())
    assert found["python"] == platform.python_version()


def test_this_machine_is_described_as_others_describe_it():
    found = machine.describe()
    json.dumps(found, allow_nan=False)
    assert found["cores"] == os.cpu_count()
    assert set(found["versions"]) == set(machine.LIBRARIES)
    assert found["versions"]["numpy"] == sys.modules["numpy"].__version__
    assert found["threads"] == 1
    assert found["python_build"].startswith(platform.python_implementation())
    if found["memory_bytes"] is not None and os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as file:
            assert found["memory_bytes"] == int(file.readline().split()[1]) * 1024


def test_the_threads_of_torch_are_told_where_it_is_at_hand(described, monkeypatch):
    class Torch:
        get_num_threads = staticmethod(lambda: 7)

    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert described()["torch_threads"] == 7


def test_what_a_look_at_the_clock_costs_is_the_median(described):
    # Mostly 40 ns from look to look, and a pause now and then.
    state = {"now": 0, "looks": 0}

    def clock():
        state["looks"] += 1
        state["now"] += 9000 if state["looks"] % 10 == 0 else 40
        return state["now"]

    assert described(clock=clock)["timer"]["cost_ns"] == 40


def test_features_have_our_names():
    llvm = {"avx2": True, "avx512f": True, "avx512bf16": True, "amx-tile": False, "sse2": True}
    assert machine.vector_features(llvm) == ["avx2", "avx512f", "avx512_bf16"]
    assert machine.vector_features({"asimd": True}) == ["neon"]
    assert machine.vector_features({"neon": True, "amx-tile": True}) == ["amx", "neon"]
    assert machine.vector_features({}) == []


def test_variables_that_change_threads_or_kernels_are_kept_and_places_are_not():
    told = {
        "OMP_NUM_THREADS": "1",
        "KMP_AFFINITY": "granularity=fine,compact",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "FASTLSTM_VECTOR_WIDTH": "8",
    }
    untold = {
        "FASTLSTM_CACHE_DIR": "cache",
        "NUMBA_CACHE_LOCATOR": "/home/someone/cache",
        "MKL_SOMETHING": "C:\\Users\\someone",
        "OMP_TOOL_LIBRARIES": "~someone",
        "HOSTNAME": "somewhere",
        "USER": "someone",
        "PATH": "1",
    }
    assert machine.settings_of({**untold, **told}) == told
    assert "someone" not in json.dumps(machine.describe(lambda path: None, untold))
