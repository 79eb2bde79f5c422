#!/usr/bin/env bash
# Lays the repository out as the wheel would, without building one, in the repository's root:  site.sh FOLDER
# Models are left out: a lent machine gets the tree without them (README.md).
set -euo pipefail
rm -rf "$1/impasto"; mkdir -p "$1"
cp -r impasto "$1/"
cp -r runtime kernels benchmarks training export "$1/impasto/"
rm -rf "$1/impasto/benchmarks/results"
