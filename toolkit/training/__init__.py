"""Robust training: one loop, the loss passed in (needs the extra `train`).

Import from the modules: `loop` (train_spec), `losses`, `spec`, `bounds` (the dual rung on torch tensors).
"""
