"""The programs that are started: one a runtime, each with the file that it ships and what it needs.

They lie in programs/ and are run by path: none of them is a module of this package.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("programs")


@dataclass(frozen=True)
class Program:
    """A script whose `load(path)` gives a step: x (I,) float32 -> (O,), the state carried.

    `ships` is a format of shipped_files.FORMATS. `imports` are the modules that it imports, beside
    NumPy, and `extra` brings them. `cache` is the environment variable that names the folder in
    which its runtime keeps machine code for the next process, "" where it keeps none.
    """

    name: str
    script: Path
    ships: str
    imports: tuple[str, ...] = ()
    extra: str = "bench"
    cache: str = ""

    def missing(self) -> str:
        """What has to be installed first; nothing ("") where all is there."""
        absent = [name for name in self.imports if importlib.util.find_spec(name) is None]
        if not absent:
            return ""
        return f"{', '.join(absent)} not installed: pip install 'fastlstm[{self.extra}]'"


PROGRAMS = (
    Program(
        "fastlstm",
        FOLDER / "fastlstm.py",
        "safetensors",
        ("fastlstm",),
        cache="FASTLSTM_CACHE_DIR",
    ),
    Program("ONNX Runtime", FOLDER / "onnx_runtime.py", "onnx", ("onnxruntime",)),
    Program("OpenVINO", FOLDER / "openvino.py", "onnx", ("openvino",), "runtimes"),
    Program("OpenCV dnn", FOLDER / "opencv.py", "onnx", ("cv2",), "runtimes"),
    Program("TorchScript", FOLDER / "torchscript.py", "torchscript", ("torch",)),
    Program("AOTInductor", FOLDER / "aotinductor.py", "inductor", ("torch",)),
    Program("torch eager", FOLDER / "torch_eager.py", "safetensors", ("torch", "safetensors")),
    Program(
        "torch.compile",
        FOLDER / "torch_compile.py",
        "safetensors",
        ("torch", "safetensors"),
        cache="TORCHINDUCTOR_CACHE_DIR",
    ),
)
