"""The question: a network, an input set, objective rows, and l,u on every ReLU input."""
