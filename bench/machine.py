"""What a result was measured on: processor, load, versions and settings."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from fastlstm.kernels.simd import NATIVE_WIDTH

LIBRARIES = ("fastlstm", "numpy", "numba", "llvmlite", "torch", "onnx", "onnxruntime")


def describe() -> dict[str, Any]:
    """The machine as plain data; what cannot be found out is None."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "system": _system(),
        "python": platform.python_version(),
        "vector_width": NATIVE_WIDTH,
        "threads": 1,
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def _system() -> str:
    # The version without the build, which names the machine's owner more than its behaviour.
    version = ".".join(platform.release().split(".")[:2])
    return f"{platform.system()} {version} {platform.machine()}"


def _processor() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
