"""Networks whose stages read several places: every rung against the real ball, files, proofs and witnesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import random_network
from oracle import forward, least, least_margins, neuron_ranges

from toolkit.certificates.check import check_proof
from toolkit.networks.network import Network
from toolkit.networks.replay import exact_margins, replay_margins
from toolkit.problems.answers import Verdict
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.settings import Settings
from toolkit.rungs import RUNGS
from toolkit.rungs.rung import Side
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem, margins
from toolkit.verify.prove import write_proof


def case(seed: int) -> tuple[Network, LinfBall]:
    rng = np.random.default_rng(seed)
    return random_network(rng, 3, inputs=2, outputs=3), LinfBall(rng.normal(size=2), 0.3)


@pytest.mark.parametrize("seed", range(6))
def test_every_rung_holds_the_exact_margin_between_its_sides(seed: int) -> None:
    network, ball = case(seed)
    bounds = layer_bounds(network, ball)
    right = [float(value) for value in least_margins(network, ball, 0)]
    found = {name: margins(network, ball, 0, name, bounds) for name in RUNGS}
    for name, rung in RUNGS.items():
        for bound, value in zip(found[name], right, strict=True):
            assert bound.certified_lower <= value + 1e-12, name
            assert bound.upper >= value - 1e-9, name
            if rung.side is Side.EXACT:
                assert bound.lower == pytest.approx(value, abs=2e-4 * max(1.0, abs(value)))
    for low, high in ((low, rung.name) for rung in RUNGS.values() for low in rung.dominates):
        for one, other in zip(found[low], found[high], strict=True):
            assert one.lower <= other.lower + 1e-6 * max(1.0, abs(other.lower)), (low, high)
    for one, other in zip(found["alpha"], found["lp"], strict=True):
        assert one.lower == pytest.approx(other.lower, abs=1e-3 * max(1.0, abs(other.lower)))


@pytest.mark.parametrize("chain", [("interval",), ("interval", "dual", "crown"), ("interval", "dual", "lp")])
@pytest.mark.parametrize("seed", range(3))
def test_layer_bounds_hold_on_the_real_ball(seed: int, chain: tuple[str, ...]) -> None:
    network, ball = case(seed)
    bounds = layer_bounds(network, ball, chain)
    assert bounds.certified
    for k, ranges in enumerate(neuron_ranges(network, ball)):
        for i, (low, high) in enumerate(ranges):
            assert bounds.lower[k][i] <= low
            assert bounds.upper[k][i] >= high


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_proofs_and_files(seed: int, tmp_path: Path) -> None:
    network, ball = case(seed)
    label = int(network.predict(ball.center))
    right = least_margins(network, ball, label)
    answer = certify(network, ball, label)
    assert answer.verdict is (Verdict.YES if min(right) > 0 else Verdict.NO)
    again = Network.load(network.save(tmp_path / "graph.npz"))
    assert again.digest == network.digest
    assert [[place for place, _ in stage.sources] for stage in again.stages] == [
        [place for place, _ in stage.sources] for stage in network.stages
    ]
    written = write_proof(tmp_path / "proof.npz", network, ball, label)
    checked = check_proof(tmp_path / "proof.npz", again)
    assert written.positive == checked.positive == (min(right) > 0)


@pytest.mark.parametrize("seed", range(5))
def test_replay_is_exact_and_its_errors_hold(seed: int) -> None:
    network, ball = case(seed)
    points, rows = ball.sample(20, seed), margin_problem(network, ball, 0).rows
    values, upper = replay_margins(network, rows, points)
    for point, value, above in zip(points, values, upper, strict=True):
        exact = exact_margins(network, rows, point)
        outputs = forward(network, point.tolist())
        assert exact == [outputs[0] - outputs[t] for t in (1, 2)]
        assert all(top >= real for top, real in zip(above.tolist(), exact, strict=True))
        np.testing.assert_allclose(value, [float(real) for real in exact], rtol=1e-9, atol=1e-12)


def test_a_witness_is_the_least_point_of_a_search() -> None:
    network, ball = case(1)
    ((value, point),) = least(network, ball, [[1.0, -1.0, 0.0]])
    (bound,) = margins(network, ball, 0, "exact", targets=[1], settings=Settings(solver="highs"))
    assert bound.witness is not None
    assert bound.upper == pytest.approx(float(value), abs=2e-4 * max(1.0, abs(float(value))))
    assert len(point) == 2


@pytest.mark.parametrize("places", [[[0], [0, 1], [3]], [[0], [0, 1]], [[0], [0, 1], []], [[0], [0, 0], [2]], "x", [0]])
def test_wiring_in_a_file_is_checked(places: object, tmp_path: Path) -> None:
    import json

    network = random_network(np.random.default_rng(0), 2)
    path = network.save(tmp_path / "graph.npz")
    with np.load(path) as archive:
        content = dict(archive)
    header = json.loads(str(content["header"]))
    header["places"] = places
    content["header"] = np.array(json.dumps(header))
    np.savez(path, **content)
    with pytest.raises(ValueError, match=r"graph\.npz is not a relugap network"):
        Network.load(path)
