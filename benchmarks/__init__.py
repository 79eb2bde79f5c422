"""Honest figures: latency by the clock, with the machine and every sample beside them."""

from .measure import Latency, measure
from .report import BenchmarkReport, SizeResult, benchmark

__all__ = ["BenchmarkReport", "Latency", "SizeResult", "benchmark", "measure"]
