"""relugap: how tightly can the robustness of a ReLU network be certified?

    from toolkit import LinfBall, Network, layer_bounds, load_dataset, margins

The public names load on first use, since solvers and plotting take seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.certificates.check import check_proof
    from toolkit.certificates.rounding import float32_error
    from toolkit.data.datasets import Dataset, dataset_names, load_dataset, register_dataset
    from toolkit.data.images import load_image
    from toolkit.networks.convolutions import Conv2d
    from toolkit.networks.layers import Dense, Flatten
    from toolkit.networks.network import Network
    from toolkit.problems.answers import Bound, Status, Verdict
    from toolkit.problems.bounds import ReluBounds
    from toolkit.problems.input_set import InputSet
    from toolkit.problems.input_sets import Box, L1Ball, L2Ball, LinfBall, make_ball
    from toolkit.problems.properties import Property, robustness
    from toolkit.problems.settings import Settings
    from toolkit.problems.vnnlib_reader import read_vnnlib
    from toolkit.report import (
        check_order,
        gap_table,
        margin_table,
        plot_margins,
        plot_radii,
        plot_tightness,
        write_report,
    )
    from toolkit.rungs.rung import Rung
    from toolkit.runs.store import read_rows
    from toolkit.runs.sweep.run import run_sweep
    from toolkit.runs.sweep.spec import SweepSpec, load_spec
    from toolkit.verify.certification import Certification
    from toolkit.verify.ladder import certify
    from toolkit.verify.layer_bounds import layer_bounds
    from toolkit.verify.margins import margins
    from toolkit.verify.prove import write_proof
    from toolkit.verify.pyomo_block import to_pyomo
    from toolkit.verify.queries import QueryResult, QueryStatus, verify_query
    from toolkit.verify.radius import certified_radius, closest
    from toolkit.verify.smoothing import smoothed_radius

PUBLIC = {
    "LinfBall": "toolkit.problems.input_sets",
    "Certification": "toolkit.verify.certification",
    "certify": "toolkit.verify.ladder",
    "certified_radius": "toolkit.verify.radius",
    "closest": "toolkit.verify.radius",
    "smoothed_radius": "toolkit.verify.smoothing",
    "Dataset": "toolkit.data.datasets",
    "dataset_names": "toolkit.data.datasets",
    "load_dataset": "toolkit.data.datasets",
    "register_dataset": "toolkit.data.datasets",
    "load_image": "toolkit.data.images",
    "layer_bounds": "toolkit.verify.layer_bounds",
    "Conv2d": "toolkit.networks.convolutions",
    "Dense": "toolkit.networks.layers",
    "margins": "toolkit.verify.margins",
    "Flatten": "toolkit.networks.layers",
    "Network": "toolkit.networks.network",
    "Box": "toolkit.problems.input_sets",
    "L1Ball": "toolkit.problems.input_sets",
    "L2Ball": "toolkit.problems.input_sets",
    "make_ball": "toolkit.problems.input_sets",
    "InputSet": "toolkit.problems.input_set",
    "Property": "toolkit.problems.properties",
    "robustness": "toolkit.problems.properties",
    "Rung": "toolkit.rungs.rung",
    "Bound": "toolkit.problems.answers",
    "ReluBounds": "toolkit.problems.bounds",
    "QueryResult": "toolkit.verify.queries",
    "QueryStatus": "toolkit.verify.queries",
    "read_vnnlib": "toolkit.problems.vnnlib_reader",
    "to_pyomo": "toolkit.verify.pyomo_block",
    "verify_query": "toolkit.verify.queries",
    "Settings": "toolkit.problems.settings",
    "Status": "toolkit.problems.answers",
    "Verdict": "toolkit.problems.answers",
    "check_order": "toolkit.report",
    "gap_table": "toolkit.report",
    "margin_table": "toolkit.report",
    "plot_margins": "toolkit.report",
    "plot_radii": "toolkit.report",
    "plot_tightness": "toolkit.report",
    "write_proof": "toolkit.verify.prove",
    "check_proof": "toolkit.certificates.check",
    "float32_error": "toolkit.certificates.rounding",
    "write_report": "toolkit.report",
    "SweepSpec": "toolkit.runs.sweep.spec",
    "load_spec": "toolkit.runs.sweep.spec",
    "read_rows": "toolkit.runs.store",
    "run_sweep": "toolkit.runs.sweep.run",
}
__all__ = [
    "Bound",
    "Box",
    "Certification",
    "Conv2d",
    "Dataset",
    "Dense",
    "Flatten",
    "InputSet",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "Network",
    "Property",
    "QueryResult",
    "QueryStatus",
    "ReluBounds",
    "Rung",
    "Settings",
    "Status",
    "SweepSpec",
    "Verdict",
    "certified_radius",
    "certify",
    "check_order",
    "check_proof",
    "closest",
    "dataset_names",
    "float32_error",
    "gap_table",
    "layer_bounds",
    "load_dataset",
    "load_image",
    "load_spec",
    "make_ball",
    "margin_table",
    "margins",
    "plot_margins",
    "plot_radii",
    "plot_tightness",
    "read_rows",
    "read_vnnlib",
    "register_dataset",
    "robustness",
    "run_sweep",
    "smoothed_radius",
    "to_pyomo",
    "verify_query",
    "write_proof",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("relugap")
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(PUBLIC[name]), name)
    except AttributeError as error:  # would be read as: there is no such name
        raise ImportError(f"toolkit.{name} cannot be loaded: {error}") from error


def __dir__() -> list[str]:
    return __all__
