"""Hypothesis strategies for networks and balls: they draw structure (sizes, scales, ε, ties), so that examples shrink.

Numbers are eighths of small integers, times the powers of ten of the structure: a shrunk example can be read.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hard_networks import CHOICES, Case, Recipe, build
from hypothesis import strategies as st

from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall

eighths = st.integers(-16, 16).map(lambda n: n / 8)


def arrays(*shape: int) -> st.SearchStrategy[np.ndarray]:
    """Arrays of eighths between −2 and 2."""
    size = int(np.prod(shape))
    return st.lists(eighths, min_size=size, max_size=size).map(lambda values: np.array(values).reshape(shape))


@st.composite
def recipes(draw: st.DrawFn, **fixed: object) -> Recipe:
    """Any recipe; fields may be fixed. The first choice of every field is the plainest, and what examples shrink to."""
    picked = {name: draw(st.sampled_from(list(dict.fromkeys(choices)))) for name, choices in CHOICES.items()
              if name not in fixed}  # fmt: skip
    return Recipe(**picked, **fixed)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn, **fixed: object) -> Case:
    """A small hard network with its ball, label and true margins; fields of the recipe may be fixed."""
    return build(draw(recipes(**fixed)), lambda *shape: draw(arrays(*shape)))


@st.composite
def networks(draw: st.DrawFn, inputs: int, outputs: int, widths: tuple[int, ...] | None = None) -> Network:
    """Dense networks with up to two ReLU layers of two to five neurons, or of the widths given."""
    own = widths or tuple(draw(st.lists(st.integers(2, 5), min_size=1, max_size=2)))
    sizes = (inputs, *own, outputs)
    return Network([Dense(draw(arrays(m, n)), draw(arrays(m))) for n, m in pairwise(sizes)])


@st.composite
def balls(draw: st.DrawFn, size: int, largest: float = 2.0) -> LinfBall:
    """Balls around points of eighths, with ε from 0 to `largest`."""
    eps = draw(st.sampled_from([0.0, 1e-9]) | st.floats(0.0, largest, allow_subnormal=False))
    return LinfBall(draw(arrays(size)), eps)
