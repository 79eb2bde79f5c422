"""What another compiler makes of the kernels' loops: instructions of each loop with tensor-core products, in two zip files of cubins.

    git show HEAD~1:kernels/gram.zip > build/before.zip
    python tests/device/loops.py build/before.zip kernels/gram.zip

Needs cuobjdump on the PATH (CUDA, or PyPI's nvidia-cuda-cuobjdump) and no GPU. A loop is what a branch jumps back over. Loops of
a kernel are alike if they have as many products and as much ordinary arithmetic; of those the longest is compared.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

Kind = tuple[str, int, int]
"""Kernel, tensor-core products, float32 instructions."""
Loop = tuple[int, int]
"""Instructions, and those among them that read or write local memory, where spilled registers are."""


def kernels(cubin: Path) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Every kernel's name and its instructions, with their addresses."""
    command = ["cuobjdump", "-sass", str(cubin)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for part in code.split("Function : ")[1:]:
        found = re.findall(r"/\*([0-9a-f]{4,6})\*/\s+([^;]*);", part)
        yield part.split("\n", 1)[0].strip(), [(int(address, 16), words) for address, words in found]


def loops(cubin: Path) -> dict[Kind, Loop]:
    """The longest loop of each kind."""
    longest: dict[Kind, Loop] = {}
    for name, instructions in kernels(cubin):
        for end, words in instructions:
            jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", words)
            if jump is None or int(jump[1], 16) >= end:
                continue
            body = [text for address, text in instructions if int(jump[1], 16) <= address <= end]
            products, arithmetic, local = (
                sum(bool(re.search(pattern, text)) for text in body)
                for pattern in ("MMA", r"\b(FFMA|FADD|FMUL)\b", r"\b(LDL|STL)\b")
            )
            if products:
                kind = name, products, arithmetic
                longest[kind] = max(longest.get(kind, (0, 0)), (len(body), local))
    return longest


def cubins(archive: str, folder: Path) -> dict[str, Path]:
    """A zip file's cubins by architecture, unpacked into this folder."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return {path.name.split("-")[0]: path for path in folder.glob("*.cubin")}


def main(before: str, after: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        was, is_now = (cubins(archive, Path(folder, name)) for name, archive in (("before", before), ("after", after)))
        for architecture in sorted(was.keys() & is_now.keys()):
            compare(architecture, loops(was[architecture]), loops(is_now[architecture]))


def compare(architecture: str, old: dict[Kind, Loop], new: dict[Kind, Loop]) -> None:
    """Print how much each loop of one architecture grew."""
    growth = {kind: new[kind][0] / old[kind][0] - 1 for kind in old if kind in new}
    print(f"{architecture}: {len(growth)} loops grow by {sum(growth.values()) / len(growth):+.1%} on average")
    for kind, share in sorted(growth.items(), key=lambda item: -item[1]):
        (was, was_local), (is_now, local) = old[kind], new[kind]
        print(f"  {kind[0]:30} {kind[1]:4} products: {was:5} -> {is_now:5} {share:+6.1%}, local {was_local} -> {local}")


if __name__ == "__main__":
    main(*sys.argv[1:])
