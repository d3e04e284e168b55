"""A linear Pyomo expression kept as one list of coefficients and one of variables.

Pyomo's LinearExpression makes an object per term, and its compiler visits each: on a 784-input network that is most of
the time spent on an LP. An AffineRow is a LinearExpression whose terms are made only when somebody asks for them; the
linear compiler takes the two lists as they are. Every other part of Pyomo sees an ordinary linear expression, but for
interfaces that look classes up by themselves (SCIP's), which take `plain` ones.
"""

from __future__ import annotations

from typing import Any

from pyomo.core.expr.numeric_expr import LinearExpression, MonomialTermExpression
from pyomo.repn import standard_repn
from pyomo.repn.linear import LinearRepnVisitor
from pyomo.repn.util import ExprType


class AffineRow(LinearExpression):  # type: ignore[misc]
    """Σ_j coefficients[j]·variables[j]; variables distinct, coefficients finite floats other than 0."""

    __slots__ = ("coefficients", "variables")

    def __init__(self, coefficients: list[float], variables: list[Any]) -> None:
        if len(coefficients) != len(variables):
            raise ValueError(f"{len(coefficients)} coefficients do not fit {len(variables)} variables")
        self.coefficients = coefficients
        self.variables = variables
        self._nargs = len(coefficients)  # type: ignore[misc]

    @property
    def _args_(self) -> list[Any]:
        return [MonomialTermExpression(term) for term in zip(self.coefficients, self.variables, strict=True)]

    @_args_.setter
    def _args_(self, terms: list[Any]) -> None:
        """Deep copies set every slot; the terms follow from the two lists, so there is nothing to keep."""

    def plain(self) -> LinearExpression:
        """The same sum with its terms made."""
        return LinearExpression(self._args_)

    def _trunc_append(self, other: Any) -> Any:
        return self.plain()._trunc_append(other)

    def _trunc_extend(self, other: Any) -> Any:
        return self.plain()._trunc_extend(other)

    def create_node_with_local_data(self, args: Any, classtype: Any = None) -> Any:
        """Copies (clones, substitutions, sums) are ordinary linear expressions."""
        return LinearExpression(list(args))


def _read_row(visitor: Any, row: AffineRow) -> tuple[bool, tuple[Any, Any]]:
    """What LinearRepnVisitor makes of an AffineRow: its two lists as {id(variable): coefficient}."""
    result = visitor.Result()
    result.linear = dict(zip(map(id, row.variables), row.coefficients, strict=True))
    if not visitor.var_map.keys() >= result.linear.keys():
        for variable in row.variables:
            if id(variable) not in visitor.var_map:
                visitor.var_recorder.add(variable)
    return False, (ExprType.LINEAR, result)


LinearRepnVisitor.before_child_dispatcher[AffineRow] = _read_row
standard_repn._repn_collectors[AffineRow] = standard_repn._collect_linear
