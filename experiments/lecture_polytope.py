"""The adversarial polytope of a network with two inputs and two logits, exactly, and outer polytopes of it by rungs.

The image F(P) of the ball under a ReLU network is a union of polygons, one per activation pattern: `image_pieces` cuts
the square P along every neuron's zero line, layer by layer, and maps the pieces. A rung's lower bound h(c) ≤ min cᵀF
says that F(P) lies in the half-plane cᵀz ≥ h(c); `outer_polygon` is what many directions c leave. Used by
lecture_figures.py (figure adversarial_polytope).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from toolkit.arrays import FloatArray
from toolkit.networks.layers import Dense
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.report.styles import CLASS_COLOURS, INK, LOOKS, OPEN_GREY, SURFACE, paper_style
from toolkit.rungs import get_rung
from toolkit.verify.certification import Certification
from toolkit.verify.ladder import certify
from toolkit.verify.layer_bounds import layer_bounds

SEED = 33  # chosen among 36 by eye: its image has horns, and LP, dual and m* part ways
RADII = (0.3, 0.37, 0.6)
LADDER = ("dual", "lp")  # without an exact rung: MAYBE can happen
DIRECTIONS = 120
HALF_PLANES = 5  # the half-plane of every fifth direction is drawn
SETTINGS = Settings(solver="highs")


@dataclass(frozen=True)
class Case:
    """One ball's image, the support values of LP and dual, and the verdict. lowest: LP minimiser and its margins."""

    eps: float
    label: int
    pieces: tuple[FloatArray, ...]
    directions: FloatArray
    lp: FloatArray
    dual: FloatArray
    answer: Certification
    center: FloatArray
    replayed: FloatArray
    margins: dict[str, float]


def network() -> Network:
    """The 2-6-6-2 network of the figure: Gaussian weights of variance 2/fan-in, biases of variance 1/4."""
    rng = np.random.default_rng(SEED)
    layers = [
        Dense(rng.normal(0, np.sqrt(2 / fan_in), (fan_out, fan_in)), rng.normal(0, 0.5, fan_out))
        for fan_in, fan_out in pairwise((2, 6, 6, 2))
    ]
    return Network(layers, f"random 2-6-6-2, seed {SEED}")


def image_pieces(net: Network, ball: LinfBall) -> list[FloatArray]:
    """Polygons in the input, on each of which the network is affine; together they are the ball.

    Shapes: (corners, 2) each, in order around the polygon. net and ball must have two inputs (ValueError).
    """
    if ball.size != 2 or net.input_size != 2:
        raise ValueError(f"the image is cut for 2 inputs, got {net.input_size} and a ball of {ball.size}")
    (x0, y0), (x1, y1) = ball.lower, ball.upper
    pieces = [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])]
    for layer, size in enumerate(net.relu_sizes):
        for neuron in range(size):
            pieces = [part for piece in pieces for part in _cut(piece, net.preactivations(piece)[layer][:, neuron])]
    return pieces


def _cut(piece: FloatArray, values: FloatArray) -> list[FloatArray]:
    """The parts of a convex polygon where an affine function, given at its corners, is ≥ 0 and ≤ 0."""
    if values.min() >= -1e-12 or values.max() <= 1e-12:
        return [piece]
    parts = []
    for sign in (1.0, -1.0):
        own, corners = sign * values, []
        for k in range(len(piece)):
            after = (k + 1) % len(piece)
            if own[k] >= 0:
                corners.append(piece[k])
            if own[k] * own[after] < 0:
                corners.append(piece[k] + (piece[after] - piece[k]) * own[k] / (own[k] - own[after]))
        if len(corners) > 2:
            parts.append(np.array(corners))
    return parts


def outer_polygon(directions: FloatArray, support: FloatArray) -> FloatArray:
    """Corners of {z : cᵀz ≥ h(c) for every direction c}, by clipping a square with each half-plane. Shape (k, 2)."""
    size = 10 * float(np.abs(support).max()) + 1.0
    polygon = size * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    for direction, value in zip(directions, support, strict=True):
        kept = _cut(polygon, polygon @ direction - value)
        polygon = kept[0]
    return polygon


def measure(eps: float, net: Network | None = None) -> Case:
    """The image of the ball of radius ε around 0, both outer polytopes, and the verdict by the ladder."""
    net = net or network()
    ball = LinfBall(np.zeros(2), eps)
    label = int(net.predict(ball.center))
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    problem = Problem.of(net, ball, directions, layer_bounds(net, ball), SETTINGS)
    row = np.array([[1.0, -1.0]]) * (1 if label == 0 else -1)
    margin = problem.with_rows(row)
    bounds = {name: get_rung(name)(margin)[0] for name in ("dual", "lp", "exact")}
    witness = bounds["lp"].witness
    return Case(
        eps,
        label,
        tuple(net.forward(piece) for piece in image_pieces(net, ball)),
        directions,
        *(np.array([bound.lower for bound in get_rung(name)(problem)]) for name in ("lp", "dual")),
        certify(net, ball, label, ladder=LADDER, settings=SETTINGS),
        net.forward(ball.center),
        net.forward(witness),
        {name: bound.lower for name, bound in bounds.items()} | {"lp_minimiser": bounds["lp"].upper},
    )


def draw(cases: Sequence[Case]) -> Figure:
    """Three panels and a legend, 3.5 inches wide."""
    with paper_style():
        figure = Figure(figsize=(3.5, 3.7), layout="constrained")
        panels = figure.subplots(2, 2).ravel()
        for panel, case in zip(panels, cases, strict=False):
            _panel(panel, case)
        figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0.02)
        handles, labels = panels[0].get_legend_handles_labels()
        panels[3].set_axis_off()
        panels[3].legend(handles, labels, loc="center", frameon=False, handlelength=1.5, fontsize=7, borderpad=0)
    return figure


def _panel(panel: Axes, case: Case) -> None:
    outer = {name: outer_polygon(case.directions, support) for name, support in (("lp", case.lp), ("dual", case.dual))}
    low, high = outer["dual"].min(axis=0), outer["dual"].max(axis=0)
    middle, half = (low + high) / 2, 0.56 * float((high - low).max())
    window = [(float(m - half), float(m + half)) for m in middle]
    _wrong_side(panel, case, window)
    for direction, value in zip(case.directions[::HALF_PLANES], case.dual[::HALF_PLANES], strict=True):
        (x, y), (across, up) = value * direction, direction
        panel.axline((x, y), (x - up, y + across), color=LOOKS["dual"].color, linewidth=0.3, alpha=0.5)
    look = {"dual": "dual: half-planes", "lp": "LP relaxation"}
    for name, polygon in (("dual", outer["dual"]), ("lp", outer["lp"])):
        color, style = LOOKS[name].color, (0, (4, 1.5)) if name == "dual" else "-"
        panel.plot(*np.vstack([polygon, polygon[:1]]).T, color=color, linewidth=1.2, linestyle=style, label=look[name])
    panel.fill(*outer["lp"].T, facecolor=LOOKS["lp"].color, alpha=0.10, linewidth=0, zorder=1.4)
    pieces = PolyCollection(case.pieces, facecolor=OPEN_GREY, edgecolor=SURFACE, linewidth=0.25, zorder=2)
    pieces.set_label("image F(P), exact")
    panel.add_collection(pieces)
    panel.axline((0, 0), slope=1, color=INK, linewidth=0.9, label="decision boundary", zorder=2.5)
    panel.plot(*case.center, "o", color=INK, markersize=3.2, label="F(x)", linestyle="", zorder=4)
    panel.plot(
        *case.replayed, "*", color=LOOKS["lp"].color, markeredgecolor=SURFACE, markeredgewidth=0.6, markersize=8,
        label="F(x̃), x̃ by the LP", linestyle="", zorder=4,
    )  # fmt: skip
    panel.set_xlim(window[0])
    panel.set_ylim(window[1])
    panel.set_aspect("equal")
    panel.set_title(f"{case.answer.verdict}: ε = {case.eps:g}", fontweight="bold", pad=3)
    panel.set_xlabel("logit F₀", labelpad=1)
    panel.set_ylabel("logit F₁", labelpad=1)
    panel.locator_params(nbins=4)
    panel.tick_params(labelsize=7.5, length=2.5)


def _wrong_side(panel: Axes, case: Case, window: Sequence[tuple[float, float]]) -> None:
    """Shade where the other class wins."""
    (x0, x1), (y0, y1) = window
    low, high = min(x0, y0), max(x1, y1)
    other = f"other class, F{'₀₁'[1 - case.label]} > F{'₀₁'[case.label]}"
    corner = [high, low] if case.label == 1 else [low, high]
    panel.fill(
        *np.array([[low, low], [high, high], corner]).T,
        facecolor=CLASS_COLOURS[1],
        alpha=0.35,
        linewidth=0,
        zorder=0,
        label=other,
    )
