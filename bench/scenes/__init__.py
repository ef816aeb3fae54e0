"""The scenes: each starts what it compares, measures, and returns rows and raw readings."""
