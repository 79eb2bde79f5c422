"""Honest figures: latency by the clock, with the machine and every sample beside them."""

from .measurement.measure import Latency, measure
from .measurement.report import BenchmarkOptions, BenchmarkReport, SizeResult, benchmark

__all__ = ["BenchmarkOptions", "BenchmarkReport", "Latency", "SizeResult", "benchmark", "measure"]
