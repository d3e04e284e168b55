"""Sweeps: networks × samples × ε × rungs from a TOML spec, run over an executor, rows on disk as they are finished.

Import from the modules: `run` (run_sweep), `spec`, `results`.
"""
