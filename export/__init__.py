"""From a checkpoint, or an external ONNX file, to a model package, lower precisions and engines.

Seven functions do what the command line's verbs do, in one call each: `export_checkpoint`, `import_onnx`, `add_float_graph`,
`quantize`, `build_engine`, `export_triton` and `check`. They are imported on first use, since they need onnx, and some of them torch or
TensorRT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from impasto.public_names import late_imports

if TYPE_CHECKING:
    from .checks.check import check
    from .checks.style import StyleReference
    from .float_graph import add_float_graph
    from .from_checkpoint import export_checkpoint
    from .from_onnx import ImportedModel, import_onnx
    from .quantization.quality import Budget
    from .quantization.search import QuantizeOptions, QuantizeResult, quantize
    from .tensorrt.options import BuildOptions, Sizes
    from .tensorrt.package_engines import BuildResult, build_engine
    from .triton.repository import TritonOptions, TritonRepository, export_triton

__all__ = [
    "Budget",
    "BuildOptions",
    "BuildResult",
    "ImportedModel",
    "QuantizeOptions",
    "QuantizeResult",
    "Sizes",
    "StyleReference",
    "TritonOptions",
    "TritonRepository",
    "add_float_graph",
    "build_engine",
    "check",
    "export_checkpoint",
    "export_triton",
    "import_onnx",
    "quantize",
]

_MODULES = {
    "Budget": "quantization.quality",
    "BuildOptions": "tensorrt.options",
    "BuildResult": "tensorrt.package_engines",
    "ImportedModel": "from_onnx",
    "QuantizeOptions": "quantization.search",
    "QuantizeResult": "quantization.search",
    "Sizes": "tensorrt.options",
    "StyleReference": "checks.style",
    "TritonOptions": "triton.repository",
    "TritonRepository": "triton.repository",
    "add_float_graph": "float_graph",
    "build_engine": "tensorrt.package_engines",
    "check": "checks.check",
    "export_checkpoint": "from_checkpoint",
    "export_triton": "triton.repository",
    "import_onnx": "from_onnx",
    "quantize": "quantization.search",
}
"""The module that each public name comes from."""

__getattr__, __dir__ = late_imports(__name__, _MODULES)
