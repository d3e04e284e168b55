"""Certified bounds and proofs: no solver and no Pyomo here."""
