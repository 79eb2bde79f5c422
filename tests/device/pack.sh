#!/usr/bin/env bash
# Before run T, on a machine with a network, in the repository's root:  pack.sh [TENSORRT_WHEEL]
# Packs TensorRT 8.5.3.1 (builder and runtime), Python 3.10, NumPy, PyCUDA, onnx and the jobs into .carry/part0 to part4, 60 MiB each at
# most. 8.5.3.1 is the newest release whose wheel holds the libraries themselves. 10 to 30 minutes, most of it xz.
#
# TENSORRT_WHEEL  tensorrt-8.5.3.1-cp310-none-manylinux_2_17_x86_64.whl; without it, pip downloads it
# PYTHON310       a CPython 3.10 built with --enable-shared (python3.10)
# CUDA_ROOT       a CUDA toolkit, for nvcc's headers (/usr/local/cuda)
# PYTHON          the Python of this repository (.venv/bin/python)
# WORK            where it works; what is compressed there already stays (a new folder)
# XZ_PRESET       6; less is faster, and takes more parts
set -euo pipefail
root=$PWD; here=$(cd "$(dirname "$0")" && pwd)
python=$(realpath -s "${PYTHON:-.venv/bin/python}"); python310=${PYTHON310:-python3.10}; cuda=${CUDA_ROOT:-/usr/local/cuda}
preset=${XZ_PRESET:-6}; wheel=${1:+$(realpath "$1")}
WORK=${WORK:-$(mktemp -d)}; mkdir -p "$WORK" .carry; cd "$WORK"; mkdir -p site/tensorrt stub

prefix=$("$python310" -c 'import sys; print(sys.base_prefix)') \
  && [ -e "$prefix/lib/libpython3.10.so.1.0" ] || { echo "$python310 is no CPython 3.10 built with --enable-shared; name one in PYTHON310"; exit 1; }
[ -x v/bin/python ] || "$python310" -m venv v
v/bin/pip install -q setuptools wheel 'numpy<2' mako
[ -n "$wheel" ] || { v/bin/pip download -q --no-deps -d . tensorrt==8.5.3.1; wheel=$(realpath tensorrt-8.5.3.1-*.whl); }
[ -d trt ] || python3 -m zipfile -e "$wheel" trt
compressing=()
for library in libnvinfer.so.8 libnvinfer_builder_resource.so.8.5.3; do
  [ -s $library.xz ] || { xz -T1 --x86 --lzma2=preset="$preset",dict=64MiB -c trt/tensorrt/$library > $library.part && mv $library.part $library.xz; } &
  compressing+=($!)
done

# TensorRT's module, and stubs for the libraries of plugins and of old parsers: they want cuDNN and cuBLAS, and nothing here calls them.
cp trt/tensorrt/{__init__.py,tensorrt.so,libnvonnxparser.so.8} site/tensorrt/
echo 'int initLibNvInferPlugins(void *logger, const char *name) { return 1; }' > plugins.c
cat > parsers.c <<'C'
void *_ZN11nvuffparser15createUffParserEv(void) { return 0; }
void _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi(void *a, const char *b, const void *c, int d, int e) {}
void *_ZN14nvcaffeparser117createCaffeParserEv(void) { return 0; }
void _ZN14nvcaffeparser123shutdownProtobufLibraryEv(void) {}
C
gcc -shared -fPIC -o site/tensorrt/libnvinfer_plugin.so.8 -Wl,-soname,libnvinfer_plugin.so.8 plugins.c
gcc -shared -fPIC -o site/tensorrt/libnvparsers.so.8 -Wl,-soname,libnvparsers.so.8 parsers.c

# A Python 3.10 that runs anywhere.
rm -rf py310; mkdir -p py310/bin py310/lib
cp "$prefix"/bin/python3.10 py310/bin/; cp -L "$prefix"/lib/libpython3.10.so.1.0 py310/lib/; cp -r "$prefix"/lib/python3.10 py310/lib/
(cd py310/lib/python3.10; rm -rf test idlelib ensurepip lib2to3 tkinter turtledemo config-* site-packages/*; find . -name __pycache__ -prune -exec rm -rf {} +)

# PyCUDA, linked against an empty libcuda: the real one is the GPU machine's driver.
if ! ls pycuda-2026.1-*.whl > /dev/null 2>&1; then
  echo > empty.c; gcc -shared -o stub/libcuda.so -Wl,-soname,libcuda.so.1 empty.c
  v/bin/pip download -q --no-deps --no-binary=:all: --no-build-isolation -d . pycuda==2026.1; tar xzf pycuda-2026.1.tar.gz
  (cd pycuda-2026.1
   ../v/bin/python configure.py --cuda-root="$cuda" --no-cuda-enable-curand --cudadrv-lib-dir="$WORK/stub,$cuda/lib64"
   sed -i "s/^LDFLAGS.*/LDFLAGS = ['-Wl,--no-as-needed']/" siteconf.py
   ../v/bin/pip wheel -q --no-build-isolation --no-deps -w .. .)
fi
v/bin/pip install -q --upgrade --target site --no-deps 'numpy<2' ./pycuda-2026.1-*.whl pytools mako platformdirs siphash24 typing_extensions markupsafe
v/bin/pip install -q --upgrade --target site --no-deps --only-binary=:all: 'onnx==1.16.2' 'protobuf<6'  # finds the layers that need FP32
rm -rf site/onnx/backend/test; find site -name tests -prune -exec rm -rf {} +

(cd "$root" && "$python" "$here/prepare.py" "$WORK/jobs" great-wave=models/great-wave denoise=models/denoise)
find py310 site -name '*.so*' -type f -exec strip -s {} + 2> /dev/null || true
tar c py310 site jobs | xz -"$preset" > rest.tar.xz
for each in "${compressing[@]}"; do wait "$each" || { echo "a library was not compressed; run pack.sh again with WORK=$WORK"; exit 1; }; done
rm -f "$root"/.carry/part*
tar c libnvinfer.so.8.xz libnvinfer_builder_resource.so.8.5.3.xz rest.tar.xz | split -b 60M -d -a 1 - "$root/.carry/part"
ls -l "$root/.carry"
