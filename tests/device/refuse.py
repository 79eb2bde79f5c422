"""Loads damaged, foreign and truncated copies of an engine, each in a process of its own, and says how each ended.

python refuse.py FOLDER_WITH_ENGINES OUT.json    # run where TensorRT runs
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOAD = """
import sys, impasto
try:
    impasto.load(sys.argv[1], backend="tensorrt", trust=sys.argv[2] == "trust").close()
    print("loaded")
except impasto.errors.ImpastoError as error:
    print(type(error).__name__, str(error)[:300])
"""


def main(folder: Path, out: Path) -> list[dict[str, Any]]:
    """How each copy ended, trusted or not; `exit` other than 0 is a crash, or an error that is not ours."""
    report = []
    plan = min(folder.glob("*.plan"), key=lambda path: path.stat().st_size)
    for name, content in damaged(plan.read_bytes()).items():
        for trust in ("", "trust"):
            ended = load(plan, content, trust)
            said = (ended.stdout.strip() or ended.stderr.strip()[-200:]).splitlines()
            report.append({"plan": name, "trust": bool(trust), "exit": ended.returncode, "said": said[-1:]})
            print(json.dumps(report[-1]), flush=True)
            out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def damaged(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    return {
        "untouched": content,
        "empty": b"",
        "100 bytes": content[:100],
        "half": content[: len(content) // 2],
        "one byte changed": bytes(flipped),
        "random": random.Random(0).randbytes(100_000),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(10_000),
    }


def load(plan: Path, content: bytes, trust: str) -> subprocess.CompletedProcess[str]:
    """Load a copy of the plan with this content beside the plan's record."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / plan.name
        copy.write_bytes(content)
        shutil.copy(plan.with_suffix(".json"), copy.with_suffix(".json"))
        command = [sys.executable, "-c", LOAD, str(copy), trust]
        return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
