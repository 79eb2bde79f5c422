#!/usr/bin/env bash
# On the GPU machine: unpack TensorRT 8.5 (the parts that the packing script made), build and measure every engine.
# Usage: measure.sh PARTS_FOLDER CARRIED_FOLDER OUT [SECONDS_FOR_BUILDING]
# PARTS_FOLDER: part0, part1, …; CARRIED_FOLDER: unpack_tensorrt85.sh, jobs.tar.xz of prepare.py, whl/ with cuda-bindings, onnx and
# protobuf.
set -uo pipefail
parts=$1 carried=$2 out=$3 seconds=${4:-240}
work=/tmp/engines; mkdir -p $work/site/impasto
here=$(cd "$(dirname "$0")" && pwd); root=$(cd "$here/../../.." && pwd)
if [ ! -x $work/trt/python ]; then
  cat "$parts"/part? > $work/joined && bash "$carried/unpack_tensorrt85.sh" $work/joined $work/trt || exit 1
  rm $work/joined
fi
tar xJf "$carried/jobs.tar.xz" -C $work
cp -r "$root"/impasto $work/site/ && cp -r "$root"/{runtime,export,benchmarks,kernels,models} $work/site/impasto/
for wheel in "$carried"/whl/*.whl; do python3 -m zipfile -e "$wheel" $work/site; done
python3 "$here/reference.py" $work/jobs > "$out/reference.log" 2>&1 &
export PYTHONPATH=$work/site PYTHONUNBUFFERED=1
$work/trt/python "$here/build.py" $work/jobs $work/plans "$seconds" 2>&1 | tee "$out/build.log"
wait
cp $work/jobs/*.npy $work/plans/
$work/trt/python -m impasto.benchmarks.engine $work/plans "$out/engines.json" 2>&1 | tee "$out/measure.log"
$work/trt/python "$here/refuse.py" $work/plans 2>&1 | tee "$out/refuse.log"
nvidia-smi --query-gpu=name,driver_version,memory.used --format=csv > "$out/gpu.txt"
