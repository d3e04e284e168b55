"""`supports`: what can be verified here, in the words of the VNN-LIB 2.0 standard, chapter "Command-line Interface"."""

from __future__ import annotations

from typing import Annotated

import typer


def supports_command(
    onnx_opset_versions: Annotated[bool, typer.Option("--onnx-opset-versions", help="The oldest and newest.")] = False,
    onnx_element_types: Annotated[bool, typer.Option("--onnx-element-types", help="Of queries.")] = False,
    onnx_operators: Annotated[bool, typer.Option("--onnx-operators", help="That networks are imported from.")] = False,
    vnnlib_versions: Annotated[bool, typer.Option("--vnnlib-versions", help="The oldest and newest.")] = False,
    hidden_node_theories: Annotated[bool, typer.Option("--hidden-node-theories")] = False,
    multiple_input_output_theories: Annotated[
        bool, typer.Option("--multiple-input-output-theories", "--multiple-inputs-output-theories")
    ] = False,
    multiple_network_theories: Annotated[bool, typer.Option("--multiple-network-theories")] = False,
    multiple_node_comparison_theories: Annotated[bool, typer.Option("--multiple-node-comparison-theories")] = False,
    arithmetic_complexity_theories: Annotated[bool, typer.Option("--arithmetic-complexity-theories")] = False,
    optimised_disjunctive_reasoning: Annotated[bool, typer.Option("--optimised-disjunctive-reasoning")] = False,
    serialise_assignments: Annotated[bool, typer.Option("--serialise-assignments")] = False,
) -> None:
    """What kinds of queries and networks can be verified, one answer a line, as the VNN-LIB 2.0 standard has it.

    Without an option: all of it, each under its name. float32 and the like are proven about in real arithmetic only,
    so that the one element type is real.

    Example: relugap supports --onnx-operators
    """
    asked = {
        "onnx-opset-versions": onnx_opset_versions,
        "onnx-element-types": onnx_element_types,
        "onnx-operators": onnx_operators,
        "vnnlib-versions": vnnlib_versions,
        "hidden-node-theories": hidden_node_theories,
        "multiple-input-output-theories": multiple_input_output_theories,
        "multiple-network-theories": multiple_network_theories,
        "multiple-node-comparison-theories": multiple_node_comparison_theories,
        "arithmetic-complexity-theories": arithmetic_complexity_theories,
        "optimised-disjunctive-reasoning": optimised_disjunctive_reasoning,
        "serialise-assignments": serialise_assignments,
    }
    answers = capabilities()
    chosen = [name for name, wanted in asked.items() if wanted]
    for name in chosen or answers:
        if not chosen:
            typer.echo(f"--{name}")
        for line in answers[name]:
            typer.echo(line)


def capabilities() -> dict[str, tuple[str, ...]]:
    """The lines of every answer, by the standard's name of the capability."""
    from toolkit.networks.importers.onnx_evaluation import import_onnx
    from toolkit.networks.importers.onnx_operators import ONNX_HANDLERS

    return {
        "onnx-opset-versions": ("7", str(import_onnx().defs.onnx_opset_version())),
        "onnx-element-types": ("real",),
        "onnx-operators": tuple(sorted(ONNX_HANDLERS)),
        "vnnlib-versions": ("1.0", "2.0"),
        "hidden-node-theories": ("NH",),
        "multiple-input-output-theories": ("SIO",),
        "multiple-network-theories": ("SNET",),
        "multiple-node-comparison-theories": ("SNC", "MNC"),
        "arithmetic-complexity-theories": ("BND", "COUT", "LIN"),
        "optimised-disjunctive-reasoning": ("false",),
        "serialise-assignments": ("false",),
    }
