"""`python -m impasto.benchmarks.standard`."""

from .evaluate import main

main()
