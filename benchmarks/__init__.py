"""What BENCHMARKS.md quotes: every figure comes from one of these commands."""
