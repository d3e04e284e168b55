"""Answers: layer bounds, margins, the ladder, the verdict, radii, explanations, proofs."""
