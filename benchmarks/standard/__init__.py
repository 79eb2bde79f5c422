"""Shipped restorers on the standard test sets: `python -m impasto.benchmarks.standard`."""
