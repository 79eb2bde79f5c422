"""What this machine has, what it can do with it, and what to install for the rest."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import impasto
from impasto.errors import install


@dataclass(frozen=True)
class Finding:
    """One thing looked for."""

    what: str
    works: bool
    found: str
    """Version and particulars, or what is in the way."""
    advice: str = ""
    """What to do where it is missing."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything looked for."""

    findings: tuple[Finding, ...]

    @property
    def can(self) -> tuple[str, ...]:
        """What works here, in words."""
        works = {finding.what for finding in self.findings if finding.works}
        abilities = {
            "run models on the CPU": {"ONNX Runtime"},
            "run models on the CPU through OpenVINO": {"OpenVINO"},
            "run models on CUDA through ONNX Runtime": {"ONNX Runtime on CUDA", "NVIDIA driver"},
            "read and write picture files": {"Pillow"},
            "read and write pictures of 16 bits": {"Pillow", "imagecodecs", "tifffile"},
            "read and write DICOM files": {"Pillow", "imagecodecs", "tifffile", "pydicom"},
            "read and write video files": {"PyAV"},
            "draw on many machines, and serve": {"Ray", "Pillow"},
            "run TensorRT engines": {"TensorRT", "PyCUDA", "NVIDIA driver"},
            "run TensorRT-RTX engines": {"TensorRT-RTX", "PyCUDA", "NVIDIA driver"},
            "build TensorRT-RTX engines": {"TensorRT-RTX", "onnx"},
            "train": {"torch", "safetensors", "Lightning Fabric"},
            "export checkpoints": {"torch", "onnx", "onnxscript"},
            "compile the CUDA kernels": {"nvcc"},
        }
        return tuple(ability for ability, needs in abilities.items() if needs <= works)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {"findings": [asdict(finding) for finding in self.findings], "can": list(self.can)}


def examine() -> Diagnosis:
    """Look at the interpreter, the libraries, the driver and the models. Takes about a second; imports nothing heavy."""
    from impasto.runtime.loading.source import known_names

    names = ", ".join(known_names())
    return Diagnosis(
        (
            Finding(
                "Impasto", True, f"{impasto.__version__} on Python {platform.python_version()}, {platform.machine()}"
            ),
            _library("NumPy", "numpy", "numpy", ""),
            *_onnxruntime(),
            _library("OpenVINO", "openvino", "openvino", install("openvino")),
            _library("Pillow", "PIL", "pillow", install("cli")),
            _library("imagecodecs", "imagecodecs", "imagecodecs", install("deep")),
            _library("tifffile", "tifffile", "tifffile", install("deep")),
            _library("pydicom", "pydicom", "pydicom", install("medical")),
            _library("PyAV", "av", "av", install("video")),
            _library("Ray", "ray", "ray", install("ray")),
            _library("onnx", "onnx", "onnx", install("export")),
            _library("torch", "torch", "torch", install("train")),
            _library("onnxscript", "onnxscript", "onnxscript", install("train")),
            _library("safetensors", "safetensors", "safetensors", install("train")),
            _library("Lightning Fabric", "lightning_fabric", "lightning-fabric", install("train")),
            _library("TensorRT-RTX", "tensorrt_rtx", "tensorrt-rtx-cu13", install("rtx")),
            _library(
                "TensorRT",
                "tensorrt",
                "tensorrt",
                "comes with JetPack on a Jetson (python3 -m venv --system-site-packages); elsewhere pip install tensorrt",
            ),
            _library("PyCUDA", "pycuda", "pycuda", f"{install('gpu')} (it compiles against the CUDA toolkit)"),
            _driver(),
            _nvcc(),
            Finding(
                "models", bool(names), names or "none", "" if names else "reinstall Impasto, or set $IMPASTO_MODELS"
            ),
        )
    )


def _library(what: str, module: str, distribution: str, advice: str) -> Finding:
    if find_spec(module) is None:
        return Finding(what, False, "not installed", advice)
    try:
        return Finding(what, True, metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return Finding(what, True, "installed, of unknown version")


def _onnxruntime() -> tuple[Finding, Finding]:
    from impasto.runtime.backends.onnxruntime import cuda_advice

    what, on_cuda = "ONNX Runtime", "ONNX Runtime on CUDA"
    advice = cuda_advice()
    if find_spec("onnxruntime") is None:
        missing = "not installed"
        return Finding(what, False, missing, install("cpu")), Finding(on_cuda, False, missing, advice)
    try:
        runtime = importlib.import_module("onnxruntime")
        providers = runtime.get_available_providers()
    except (ImportError, AttributeError) as error:  # AttributeError: both packages were installed over each other
        broken = f"broken: {error}"
        return Finding(what, False, broken, "pip install --force-reinstall onnxruntime"), Finding(
            on_cuda, False, broken, advice
        )
    cpu = Finding(what, "CPUExecutionProvider" in providers, runtime.__version__)
    if "CUDAExecutionProvider" in providers:
        return cpu, Finding(on_cuda, True, f"{runtime.__version__}; a session decides whether it really runs")
    return cpu, Finding(on_cuda, False, "this package has no CUDA provider", advice)


def _driver() -> Finding:
    what, advice = "NVIDIA driver", "install NVIDIA's driver, if this machine has such a GPU"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding(what, False, "no nvidia-smi: no driver, or a Jetson before JetPack 6", advice)
    query = [tool, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(what, False, f"nvidia-smi does not answer: {error}", advice)
    text = "; ".join((answer.stdout or answer.stderr).strip().splitlines())
    return Finding(what, answer.returncode == 0, text, "" if answer.returncode == 0 else advice)


def _nvcc() -> Finding:
    from impasto.kernels.build import PTX

    tool, wanted = shutil.which("nvcc"), PTX[1]
    advice = f"only for rebuilding the kernels: put the nvcc of CUDA {wanted} on the PATH"
    if tool is None:
        return Finding("nvcc", False, "not found", advice)
    try:
        answer = subprocess.run([tool, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("nvcc", False, f"{tool} does not answer: {error}", "reinstall the CUDA toolkit")
    release = next((line.split("release", 1)[1].strip() for line in answer.splitlines() if "release" in line), tool)
    fits = release.split(",")[0] == wanted
    return Finding("nvcc", fits, release, "" if fits else advice)
