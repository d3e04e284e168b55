"""Stages: what is refused, and the one map that stands for all sources of a stage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from toolkit.networks.convolutions import Conv2d
from toolkit.networks.layers import Dense, Sparse
from toolkit.networks.network import Network
from toolkit.networks.stages import Stage, hidden_stages, place_sizes, sequential


def test_a_chain_reads_the_place_before(rng: np.random.Generator) -> None:
    layers = [Conv2d(rng.normal(size=(2, 1, 2, 2)), rng.normal(size=2), (1, 3, 3)), Dense(rng.normal(size=(3, 8)))]
    stages = sequential(layers)
    assert [(stage.relu, [j for j, _ in stage.sources]) for stage in stages] == [(True, [0]), (False, [1])]
    assert all(stage.relu for stage in hidden_stages(layers))
    assert place_sizes(stages, 9) == (9, 8, 3)
    assert stages[0].stacked is layers[0]
    x = rng.normal(size=(4, 9))
    hidden = np.maximum(stages[0].forward([x]), 0.0)
    np.testing.assert_allclose(stages[1].forward([x, hidden]), Network(layers).forward(x), atol=1e-12)


def test_sources_side_by_side(rng: np.random.Generator) -> None:
    """[W₀ W₁], the bias once, errors of both; restricted as its parts are."""
    first = Dense(rng.normal(size=(3, 2)), rng.normal(size=3)).with_error([1.0, 2.0], 0.5)
    second = Sparse(sp.csr_array(rng.normal(size=(3, 4))), np.zeros(3)).with_error(None, 0.25)
    stage = Stage(((1, first), (0, second)))
    joined = stage.stacked
    np.testing.assert_array_equal(joined.to_sparse().toarray(), np.hstack([first.weight, second.matrix.toarray()]))
    np.testing.assert_array_equal(joined.bias_vector, first.bias)
    np.testing.assert_array_equal(joined.column_error, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    assert joined.bias_error == 0.75
    places = [np.array([0, 3]), np.array([1])]
    np.testing.assert_array_equal(stage.gathered_indices(places), [1, 2, 5])
    part = stage.restrict(np.array([2]), places)
    np.testing.assert_array_equal(part.stacked.to_sparse().toarray(), joined.to_sparse().toarray()[[2]][:, [1, 2, 5]])
    np.testing.assert_array_equal(stage.gathered([np.arange(4.0), np.array([7.0, 8.0])]), [7, 8, 0, 1, 2, 3])


def test_what_is_refused() -> None:
    one, wide = Dense([[1.0]]), Dense([[1.0, 1.0]])
    with pytest.raises(ValueError, match="only the first map of a stage may have a bias, got one from place 1"):
        Stage(((0, one), (1, Dense([[1.0]], [2.0]))))
    with pytest.raises(ValueError, match="stage 0 may read places 0 … 0, got 1"):
        place_sizes((Stage(((1, one),)),), 1)
    with pytest.raises(ValueError, match="the input gives 1 features, layer 0 takes 2"):
        place_sizes((Stage(((0, wide),)),), 1)
    with pytest.raises(ValueError, match=r"stage 0 must read at least one place, each once, got \[0, 0\]"):
        place_sizes((Stage(((0, one), (0, one))),), 1)
    with pytest.raises(ValueError, match="stage 1 sums maps to 1 and 2 values"):
        place_sizes((Stage(((0, one),)), Stage(((0, one), (1, Dense(np.ones((2, 1))))))), 1)
