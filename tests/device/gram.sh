#!/usr/bin/env bash
# Run K, on a GPU machine with torch, pytest (timeout, xdist) and CUDA's tools, in the repository's root:  gram.sh OUT
# Checks the Gram kernel, times both forward kernels, looks where they wait, and runs compute-sanitizer. 8 to 11 minutes: every step
# has a limit of its own, and its log is in OUT whatever becomes of the next one.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd); here=$(cd "$(dirname "$0")" && pwd)
site=${SITE:-/tmp/gram-site}
bash "$here/site.sh" "$site" || exit 1
export PYTHONPATH=$site PYTHONUNBUFFERED=1
python="${PYTHON:-python3} -P -m"
tests="pytest -p no:cacheprovider -q -m gpu tests/kernels/test_gram_gpu.py"

# Hopper's own kernel first, and alone: a barrier that never opens hangs the GPU for everybody.
timeout 70 $python $tests -k warpgroups --timeout=60 > "$out/wgmma.log" 2>&1; echo "wgmma tests: $?"; tail -n 4 "$out/wgmma.log"
timeout 170 $python $tests -n 6 -k "not warpgroups" > "$out/tests.log" 2>&1; echo "other tests: $?"; tail -n 12 "$out/tests.log"
timeout 40 $python pytest -p no:cacheprovider -q -m gpu tests/kernels/test_frames_gpu.py > "$out/frames.log" 2>&1; echo "frames: $?"; tail -n 4 "$out/frames.log"

timeout 110 $python impasto.benchmarks.gram --no-compile --json "$out/gram.json" 2>&1 | tee "$out/gram.log"
for kernel in mma wgmma; do
  IMPASTO_GRAM=$kernel timeout 50 ncu --clock-control none --kernel-name regex:gram_ --launch-skip 4 --launch-count 2 \
    --section SpeedOfLight --section WarpStateStats --section MemoryWorkloadAnalysis --section LaunchStats \
    $python impasto.benchmarks.gram --once > "$out/ncu-$kernel.log" 2>&1
  echo "ncu $kernel: $?"; grep -E "gram_|Duration|Throughput" "$out/ncu-$kernel.log"
done

for tool in memcheck racecheck synccheck; do
  (timeout 160 compute-sanitizer --tool $tool --error-exitcode 9 --target-processes all \
    $python $tests -x --timeout=150 -k "warpgroups_equal or (one_launch and f16)" > "$out/$tool.log" 2>&1
   echo "$tool: $?"; tail -n 2 "$out/$tool.log") &
done
wait
nvidia-smi --query-gpu=name,driver_version,memory.used --format=csv | tee "$out/gpu.txt"
