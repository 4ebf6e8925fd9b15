"""What tracing costs, in figures: ``python -m benchmarks``."""
