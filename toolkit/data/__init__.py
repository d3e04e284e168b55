"""What comes from outside, checked at the door: arguments, files, texts, archives, data sets."""

from toolkit.data.datasets import Dataset, load_dataset, register_dataset
from toolkit.data.images import load_image

__all__ = ["Dataset", "load_dataset", "load_image", "register_dataset"]
