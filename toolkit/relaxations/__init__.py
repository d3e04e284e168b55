"""Relaxations of the ReLU: the Pyomo template and its cuts."""
