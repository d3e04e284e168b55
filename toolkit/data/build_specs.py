"""How a wheel is built: the specs of experiments/ become package data, so that they live in one place.

They go into toolkit/experiments of a wheel, and nowhere in a checkout or an editable installation, which read
experiments/ itself (shipped_specs.py). setuptools runs this, by pyproject.toml; the package never imports it.
"""

from __future__ import annotations

from pathlib import Path

from setuptools.command.build_py import build_py

SOURCES = Path("experiments")  # setuptools builds in the folder of pyproject.toml
PLACE = Path("toolkit", "experiments")


class BuildWithSpecs(build_py):  # type: ignore[misc]
    """The modules and their data, then the specs."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for spec, target in self._specs():
            self.mkpath(str(target.parent))
            self.copy_file(str(spec), str(target))

    def _specs(self) -> list[tuple[Path, Path]]:
        return [(spec, Path(self.build_lib) / PLACE / spec.name) for spec in sorted(SOURCES.glob("*.toml"))]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """For installers that record what they wrote."""
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._specs())]

    def get_source_files(self) -> list[str]:
        """For source distributions, of which wheels are built as well."""
        return [*super().get_source_files(), *(str(spec) for spec, _ in self._specs())]
