"""Loads damaged copies of an engine, each in a process of its own, and says how each ended. Run where TensorRT runs.

python refuse.py FOLDER_WITH_ENGINES
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOAD = """
import sys, impasto
try:
    impasto.load(sys.argv[1], backend="tensorrt", trust=sys.argv[2] == "trust").close()
    print("loaded")
except impasto.errors.ImpastoError as error:
    print(type(error).__name__, str(error)[:300])
"""

plan = min(Path(sys.argv[1]).glob("*.plan"), key=lambda path: path.stat().st_size)
content = plan.read_bytes()
generator = random.Random(0)
flipped = bytearray(content)
flipped[len(content) // 2] ^= 0xFF
variants = {
    "untouched": content,
    "empty": b"",
    "100 bytes": content[:100],
    "half": content[: len(content) // 2],
    "one byte changed": bytes(flipped),
    "random": generator.randbytes(100_000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(10_000),
}
for name, damaged in variants.items():
    for trust in ("", "trust"):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / plan.name
            copy.write_bytes(damaged)
            shutil.copy(plan.with_suffix(".json"), copy.with_suffix(".json"))
            ended = subprocess.run(
                [sys.executable, "-c", LOAD, str(copy), trust], capture_output=True, text=True, check=False
            )
            text = (ended.stdout.strip() or ended.stderr.strip()[-200:]).splitlines()
            print(
                json.dumps({"plan": name, "trust": bool(trust), "exit": ended.returncode, "said": text[-1:]}),
                flush=True,
            )
