"""What a result was measured on: processor, clocks, load, versions and settings.

Nothing here names the machine, its owner or a path, so a result can be handed to anyone.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from fastlstm.kernels.simd import NATIVE_WIDTH

# The text of a file, without space around it; None where it cannot be read.
Read = Callable[[str], str | None]

LIBRARIES = (
    "fastlstm",
    "numpy",
    "numba",
    "llvmlite",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "opencv-python-headless",
    "safetensors",
)
# Our word for a feature, and LLVM's words for it: any of them will do.
FEATURES = {
    "avx2": ("avx2",),
    "fma": ("fma",),
    "avx512f": ("avx512f",),
    "avx512_vnni": ("avx512vnni",),
    "avx512_bf16": ("avx512bf16",),
    "avx512_fp16": ("avx512fp16",),
    "amx": ("amx-tile",),
    "neon": ("neon", "asimd"),
    "sve": ("sve",),
}
# Beginnings of the names of variables that change threads or choose kernels.
VARIABLES = (
    "ATEN_",
    "DNNL_",
    "FASTLSTM_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "NPY_",
    "NUMBA_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "VECLIB_",
)
# Ends of the names of variables that hold a place on this machine, whatever it looks like.
PLACES = ("_DIR", "_FILE", "_PATH", "_HOME")
TIMER_LOOKS = 5000
CPUS = "/sys/devices/system/cpu"


def read(path: str) -> str | None:
    """The text of a file, as Read has it."""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def describe(
    read: Read = read,
    environment: Mapping[str, str] = os.environ,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Any]:
    """The machine as plain data; what cannot be found out is None. Never raises."""
    allowed, core = _allowed(), _core()
    loads = _or_none(lambda: [round(load, 2) for load in os.getloadavg()])
    flags = _cpuinfo(read, "flags")
    return {
        "processor": _processor(read),
        "cores": os.cpu_count(),
        "cores_allowed": allowed,
        "cpu_quota": _or_none(lambda: _quota(read)),
        "smt_siblings": _siblings(read, allowed),
        "caches": _or_none(lambda: _caches(read, core)),
        "vector_width": NATIVE_WIDTH,
        "vector_features": _or_none(lambda: vector_features(llvm.get_host_cpu_features())),
        "governor": governor(read),
        "frequency_mhz": _frequencies(read, core),
        "turbo": _turbo(read),
        "hypervisor": None if flags is None else "hypervisor" in flags.split(),
        "memory_bytes": _or_none(
            lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        ),
        "transparent_huge_pages": _or_none(lambda: _huge_pages(read)),
        "load_average": loads[0] if loads else None,
        "load_averages": loads,
        "system": _system(),
        "c_library": _or_none(lambda: " ".join(platform.libc_ver()).strip() or None),
        "python": platform.python_version(),
        "python_build": _or_none(_python_build),
        "timer": _timer(read, clock),
        "threads": 1,
        "torch_threads": _torch_threads(),
        "environment": settings_of(environment),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def governor(read: Read = read) -> str | None:
    """What decides the frequency of the core that this process may use first."""
    return read(f"{CPUS}/cpu{_core()}/cpufreq/scaling_governor")


def vector_features(found: Mapping[str, bool]) -> list[str]:
    """Those of FEATURES that a processor has, which LLVM describes as `found`."""
    return [name for name, words in FEATURES.items() if any(found.get(word) for word in words)]


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change threads or kernels, without those that hold a place."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(VARIABLES)
        and not name.endswith(PLACES)
        and not set("/\\~@") & set(value)
    }


def _or_none(find: Callable[[], Any]) -> Any:
    """What `find` returns, and None on a system that has no such thing or writes it otherwise."""
    try:
        return find()
    except (OSError, ValueError, AttributeError, IndexError):
        return None


def _allowed() -> list[int] | None:
    """The cores that this process may use."""
    found: list[int] | None = _or_none(lambda: sorted(os.sched_getaffinity(0)))
    return found


def _core() -> int:
    """The first core that this process may use: what is read of one core is of this one."""
    return (_allowed() or [0])[0]


def _quota(read: Read) -> float | None:
    """How many cores' time the control group of this process may use, if that is limited."""
    words = (read("/sys/fs/cgroup/cpu.max") or "max").split()
    return None if words[0] == "max" else int(words[0]) / int(words[1])


def _siblings(read: Read, allowed: list[int] | None) -> list[str] | None:
    """Which of the allowed cores are one core's threads, such as "0,4"; empty where none are."""
    if allowed is None:
        return None
    found = [read(f"{CPUS}/cpu{core}/topology/thread_siblings_list") for core in allowed]
    if None in found:
        return None
    groups = dict.fromkeys(group for group in found if group)
    return [group for group in groups if not group.isdecimal()]


def _caches(read: Read, core: int) -> str | None:
    """The data caches of a core by level: "L1d 48 KiB, L2 2 MiB, L3 260 MiB"."""
    found = []
    for index in range(10):
        folder = f"{CPUS}/cpu{core}/cache/index{index}"
        level, kind, size = (read(f"{folder}/{name}") for name in ("level", "type", "size"))
        if not level or not kind or not size:
            break
        if kind != "Instruction":
            suffix = "d" if kind == "Data" else ""
            found.append(f"L{level}{suffix} {_in_units(int(size.removesuffix('K')))}")
    return ", ".join(found) or None


def _in_units(kibibytes: int) -> str:
    return f"{kibibytes / 1024:g} MiB" if kibibytes >= 1024 else f"{kibibytes} KiB"


def _frequencies(read: Read, core: int) -> dict[str, int | None]:
    folder = f"{CPUS}/cpu{core}/cpufreq"

    def mhz(name: str) -> int | None:
        found: int | None = _or_none(lambda: round(int(read(f"{folder}/{name}") or "") / 1000))
        return found

    # A virtual machine often has no cpufreq, but a fixed figure here.
    nominal = _or_none(lambda: round(float(_cpuinfo(read, "cpu MHz") or "")))
    return {
        "current": mhz("scaling_cur_freq") or nominal,
        "minimum": mhz("cpuinfo_min_freq"),
        "maximum": mhz("cpuinfo_max_freq"),
    }


def _turbo(read: Read) -> bool | None:
    """Whether a core may go above its nominal frequency."""
    for path, on in ((f"{CPUS}/cpufreq/boost", "1"), (f"{CPUS}/intel_pstate/no_turbo", "0")):
        found = read(path)
        if found in ("0", "1"):
            return found == on
    return None


def _huge_pages(read: Read) -> str | None:
    """Of "always [madvise] never" the word in brackets."""
    found = read("/sys/kernel/mm/transparent_hugepage/enabled")
    return found[found.index("[") + 1 : found.index("]")] if found else None


def _system() -> str:
    # The version without the build, which names the machine's owner more than its behaviour.
    version = ".".join(platform.release().split(".")[:2])
    return f"{platform.system()} {version} {platform.machine()}"


def _python_build() -> str:
    """Implementation, compiler and what else decides how fast Python itself is."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    facts = {
        "optimised by profile": "--enable-optimizations" in options,
        "optimised when linked": "--with-lto" in options,
        "debug": bool(sysconfig.get_config_var("Py_DEBUG")),
        "no GIL": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    }
    names = (platform.python_implementation(), platform.python_compiler().strip())
    return ", ".join([*filter(None, names), *(fact for fact, true in facts.items() if true)])


def _timer(read: Read, clock: Callable[[], int]) -> dict[str, Any]:
    """The clock that times everything: what it says of itself, and what a look at it costs."""
    looks = [clock() for _ in range(TIMER_LOOKS)]
    costs = [b - a for a, b in pairwise(looks)]
    return {
        "source": read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "resolution_ns": round(time.get_clock_info("perf_counter").resolution * 1e9, 3),
        "cost_ns": statistics.median(costs),
    }


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return _or_none(lambda: torch.get_num_threads()) if torch else None


def _cpuinfo(read: Read, field: str) -> str | None:
    """The first core's value of a field of /proc/cpuinfo."""
    for line in (read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None


def _processor(read: Read) -> str:
    return _cpuinfo(read, "model name") or platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
