"""A Pyomo model as the matrices that every solver session starts from.

Pyomo's LinearStandardFormCompiler turns the model into sparse form once. Trusted: that compiler, for a MILP's
bound alone: what an LP's duals prove is certified from the network itself.
"""

from __future__ import annotations

import numpy as np
import pyomo.environ as pyo
import scipy.sparse as sp
from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler

from toolkit.arrays import BoolArray
from toolkit.solvers.linear_program import CompiledModel


def compile_model(model: pyo.ConcreteModel) -> CompiledModel:
    """Matrices of a Pyomo model whose variables are all bounded; columns in the order the model declares them."""
    variables = list(model.component_data_objects(pyo.Var))
    position = {id(variable): j for j, variable in enumerate(variables)}
    form = LinearStandardFormCompiler().write(model, mixed_form=True)
    entries = form.A.tocoo()
    columns = np.array([position[id(variable)] for variable in form.columns], dtype=np.int64)
    shape = (len(form.rows), len(variables))
    matrix = sp.csr_array((entries.data, (entries.row, columns[entries.col])), shape=shape)
    side = np.asarray(form.rhs, dtype=np.float64)
    kind = np.array([row.bound_type for row in form.rows], dtype=np.int64)  # −1: ≥, 0: =, 1: ≤
    return CompiledModel(
        matrix,
        np.where(kind <= 0, side, -np.inf),
        np.where(kind >= 0, side, np.inf),
        np.array([variable.lb for variable in variables], dtype=np.float64),
        np.array([variable.ub for variable in variables], dtype=np.float64),
        integer_columns(model),
    )


def integer_columns(model: pyo.ConcreteModel) -> BoolArray:
    """Mask of the integer columns as the model stands now (its indicators may have been flipped)."""
    flags = [variable.is_integer() for variable in model.component_data_objects(pyo.Var)]
    return np.array(flags, dtype=np.bool_)
