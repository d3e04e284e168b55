"""Linear programs and the solvers that take them, one file each."""
