"""How latency and energy are measured, compared and reported."""
