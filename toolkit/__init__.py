"""relugap: how tightly can the robustness of a ReLU network be certified?

    from toolkit import LinfBall, Network, layer_bounds, load_dataset, margins

The public names load on first use, since solvers and plotting take seconds to import.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.balls import LinfBall
    from toolkit.certify import Certification, certify
    from toolkit.data import Dataset, dataset_names, load_dataset
    from toolkit.layer_bounds import layer_bounds
    from toolkit.layers import Conv2d, Dense
    from toolkit.margins import margins
    from toolkit.network import Flatten, Network
    from toolkit.problem import Bound, ReluBounds, Settings, Status, Verdict
    from toolkit.radius import certified_radius
    from toolkit.report import check_order, gap_table, margin_table, write_report
    from toolkit.store import read_rows
    from toolkit.sweep.run import run_sweep
    from toolkit.sweep.spec import SweepSpec, load_spec

PUBLIC = {
    "LinfBall": "toolkit.balls",
    "Certification": "toolkit.certify",
    "certify": "toolkit.certify",
    "certified_radius": "toolkit.radius",
    "Dataset": "toolkit.data",
    "dataset_names": "toolkit.data",
    "load_dataset": "toolkit.data",
    "layer_bounds": "toolkit.layer_bounds",
    "Conv2d": "toolkit.layers",
    "Dense": "toolkit.layers",
    "margins": "toolkit.margins",
    "Flatten": "toolkit.network",
    "Network": "toolkit.network",
    "Bound": "toolkit.problem",
    "ReluBounds": "toolkit.problem",
    "Settings": "toolkit.problem",
    "Status": "toolkit.problem",
    "Verdict": "toolkit.problem",
    "check_order": "toolkit.report",
    "gap_table": "toolkit.report",
    "margin_table": "toolkit.report",
    "write_report": "toolkit.report",
    "SweepSpec": "toolkit.sweep.spec",
    "load_spec": "toolkit.sweep.spec",
    "read_rows": "toolkit.store",
    "run_sweep": "toolkit.sweep.run",
}
__all__ = [
    "Bound",
    "Certification",
    "Conv2d",
    "Dataset",
    "Dense",
    "Flatten",
    "LinfBall",
    "Network",
    "ReluBounds",
    "Settings",
    "Status",
    "SweepSpec",
    "Verdict",
    "certified_radius",
    "certify",
    "check_order",
    "dataset_names",
    "gap_table",
    "layer_bounds",
    "load_dataset",
    "load_spec",
    "margin_table",
    "margins",
    "read_rows",
    "run_sweep",
    "write_report",
]


class _OnFirstUse:
    """A public name, imported when it is asked for.

    A data descriptor, because a module-level __getattr__ would lose `certify`, `margins` and `layer_bounds` to the
    submodules of the same name, which the import system binds here.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, package: ModuleType, kind: type[ModuleType]) -> Any:
        try:
            return getattr(import_module(PUBLIC[self._name]), self._name)
        except AttributeError as error:  # would be read as: there is no such name
            raise ImportError(f"toolkit.{self._name} cannot be loaded: {error}") from error

    def __set__(self, package: ModuleType, value: Any) -> None:
        if not isinstance(value, ModuleType):
            raise AttributeError(f"toolkit.{self._name} is read-only")


def __dir__() -> list[str]:
    return __all__


sys.modules[__name__].__class__ = type("_Package", (ModuleType,), {name: _OnFirstUse(name) for name in PUBLIC})
