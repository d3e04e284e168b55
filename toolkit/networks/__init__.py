"""Networks: affine maps and ReLUs, their files, importers and replay."""
