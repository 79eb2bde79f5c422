#!/usr/bin/env bash
# On a GPU machine with torch, pytest and nvcc: check the Gram kernel, time it, and look where it waits. Each step ends within 10 minutes.
# Usage, in the repository: tests/device/kernels/measure.sh check|time|sanitize OUT
set -uo pipefail
step=$1 out=$2
site=/tmp/site-kernels; rm -rf $site; mkdir -p $site/impasto
cp -r impasto/. $site/impasto/ && cp -r runtime kernels benchmarks training export models $site/impasto/ || exit 1
export PYTHONPATH=$site PYTHONUNBUFFERED=1
run() { timeout "$1" python3 -P -m "${@:2}"; }
gpu_tests() { run "$1" pytest -p no:cacheprovider -q -m gpu tests/kernels/test_gram_gpu.py "${@:2}"; }
case $step in
check)
  gpu_tests 500 2>&1 | tee "$out/tests.log"
  ;;
time)
  run 420 impasto.benchmarks.gram --variants --json "$out/gram.json" --plot "$out/gram.png" 2>&1 | tee "$out/gram.log"
  # What the two forward kernels and the second pass wait for.
  for kernel in mma wgmma; do
    echo "== $kernel" && IMPASTO_GRAM=$kernel timeout 75 ncu --clock-control none --kernel-name regex:gram_ --launch-skip 4 --launch-count 4 \
      --section SpeedOfLight --section WarpStateStats --section MemoryWorkloadAnalysis --section LaunchStats \
      python3 -P -m impasto.benchmarks.gram --once
  done 2>&1 | tee "$out/ncu.log" | grep -E "==|gram_|Duration|Throughput|Elapsed" || true
  ;;
sanitize)
  few="warpgroups or (one_launch and (f16 or bf16)) or (masks and f16)"
  for tool in memcheck racecheck synccheck; do
    timeout 170 compute-sanitizer --tool $tool --error-exitcode 9 --target-processes all \
      python3 -P -m pytest -p no:cacheprovider -q -x --timeout=160 -m gpu tests/kernels/test_gram_gpu.py -k "$few" > "$out/$tool.log" 2>&1
    echo "$tool: $?"; tail -3 "$out/$tool.log"
  done
  ;;
*)
  echo "check, time or sanitize, not '$step'"; exit 2
  ;;
esac
