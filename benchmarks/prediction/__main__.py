"""`python -m impasto.benchmarks.prediction`."""

from .against import main

main()
