#!/usr/bin/env bash
# Run T, on the GPU machine, in the repository's root:  engines.sh FOLDER_WITH_PARTS OUT [SECONDS_FOR_BUILDING]
# Unpacks what pack.sh packed, builds every job, compares with ONNX Runtime's FP32 drawing, times, streams, and loads damaged plans.
# 8 to 11 minutes. Every step writes its JSON as it goes, also where it fails.
set -uo pipefail
parts=$(cd "$1" && pwd); out=$(mkdir -p "$2" && cd "$2" && pwd); seconds=${3:-240}
here=$(cd "$(dirname "$0")" && pwd); work=${WORK:-/tmp/engines}
mkdir -p "$work/site"
cat "$parts"/part? | tar x -C "$work" || exit 1
bash "$here/site.sh" "$work/site" || exit 1
cd "$work" && tar xJf rest.tar.xz || exit 1
for library in libnvinfer.so.8 libnvinfer_builder_resource.so.8.5.3; do xz -dc $library.xz > site/tensorrt/$library & done; wait
(cd "$here" && "${PYTHON:-python3}" reference.py "$work/jobs") > "$out/reference.log" 2>&1 &
cat > py <<P
#!/bin/sh
PYTHONUNBUFFERED=1 PYTHONPATH=$work/site LD_LIBRARY_PATH=$work/site/tensorrt:$work/py310/lib:\$LD_LIBRARY_PATH exec $work/py310/bin/python3.10 "\$@"
P
chmod +x py
./py -c 'import tensorrt, onnx, pycuda.driver as d; d.init(); print(tensorrt.__version__, onnx.__version__, d.Device(0).name(), d.get_driver_version())' 2>&1 \
  | tee "$out/machine.log"
timeout $((seconds + 60)) ./py "$here/build.py" jobs plans "$out/builds.json" "$seconds" 2>&1 | tee "$out/build.log"
wait; cp jobs/*.npy plans/
timeout 150 ./py -m impasto.benchmarks.engine plans "$out/engines.json" 2>&1 | cut -c 1-600 | tee "$out/measure.log"
timeout 60 ./py "$here/refuse.py" plans "$out/refusals.json" 2>&1 | tee "$out/refuse.log"
tar czf "$out/records.tgz" plans/*.json plans/*.timing 2> /dev/null
nvidia-smi --query-gpu=name,driver_version,memory.used --format=csv | tee "$out/gpu.txt"
