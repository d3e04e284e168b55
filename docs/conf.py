"""The site: `make docs` builds build/site from docs/ and the tables it links to in results/; warnings are errors.

The pages are plain Markdown, to be read on a forge as well. Whatever only the site needs is here: the order of its
pages, formulas in the forge's notation ($`…`$), Mermaid pictures drawn while building, docstrings as prose. A built
site asks nothing of the network: MathJax is copied into it. Sources are found from the root of the checkout
(`-c docs .`), so that links from a page to a table work in both places.
"""

import re
from collections.abc import Iterable
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import mermaidx
from docutils import nodes
from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import stringify_annotation

import toolkit.arrays

project = "relugap"
author = "The relugap authors"
copyright = author
version = release = installed_version("relugap")
ROOT = Path(__file__).parents[1]


def linked_tables() -> list[str]:
    """Markdown files of results/ that a page links to, or that such a file links to."""
    found: set[Path] = set()
    waiting = sorted((ROOT / "docs").glob("*.md"))
    while waiting:
        page = waiting.pop()
        for link in re.findall(r"\]\(([^):#]+\.md)", page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.is_relative_to(ROOT / "results") and target.is_file() and target not in found:
                found.add(target)
                waiting.append(target)
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


LINKED = linked_tables()

# Headings of the navigation and the pages below them, in order; pages that none names come last under "How to".
NAVIGATION = {
    "Start": ["notebooks/five_minutes", "install", "notebooks/lecture", "guarantees", "method"],
    "How to": ["networks", "data", "notebooks/sweep_to_figure", "notebooks/reading_a_gap", "results"],
    "Topics": ["tables", "vnnlib", "smoothing", "beside"],
    "Reference": ["api/index", "cli", "adding", "architecture"],
}
NAMED = {name for names in NAVIGATION.values() for name in names} | {"index"}
OTHERS = [page.stem for page in sorted((ROOT / "docs").glob("*.md")) if page.stem not in NAMED]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "docs/**.rst", "docs/**.ipynb", *LINKED]
exclude_patterns = [".*", "build", "dist", "toolkit", "tests", "experiments", "docs/_static", "**.ipynb_checkpoints"]
templates_path: list[str] = []
language = "en"

html_theme = "furo"
html_title = "relugap"
html_show_copyright = html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_fence_as_directive = ["math", "mermaid"]
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: name for name in (*vars(toolkit.arrays), "ArrayLike") if name.endswith(("Array", "ArrayLike"))
}
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False


WORD = r"[a-z](?:\w|\\_)*"
ARGUMENTS = re.compile(rf"((?:\A|\n\n|[.;)]\s))({WORD}(?:, {WORD})*):(?=\s)")


def mathjax_file() -> Path:
    """MathJax with its fonts in one file, out of a package that ships it for another framework."""
    package = find_spec("mathjax")
    if package is None or package.origin is None:
        raise FileNotFoundError("the site needs the package django-static-mathjax: pip install 'relugap[docs]'")
    return Path(package.origin).parent / "static" / "mathjax" / "es5" / "tex-svg.js"


html_static_path.append(str(mathjax_file()))
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}


class Mermaid(SphinxDirective):
    """A Mermaid picture as SVG."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        name = f"mermaid-{self.env.new_serialno('mermaid')}"
        drawn = mermaidx.render("\n".join(self.content)).svg().replace("my-svg", name)
        return [nodes.raw("", f'<div class="mermaid">{drawn}</div>', format="html")]


def toctree(pages: Iterable[str], caption: str = "") -> str:
    options = [":hidden:", f":caption: {caption}"] if caption else [":hidden:"]
    return "\n".join(["", "", ":::{toctree}", *options, "", *pages, ":::", ""])


def adapt_page(app: Sphinx, page: str, source: list[str]) -> None:
    """The forge's $`…`$ becomes a formula, a table gets a title, and pages the navigation below them."""
    if page.startswith(("docs/api/", "docs/notebooks/")):
        return
    text = re.sub(r"\$`([^`]*)`\$", r"{math}`\1`", source[0])
    if page.startswith("results/") and not text.startswith("# "):
        text = f"# {Path(page).parent.name.replace('-', ' ').capitalize()}\n\n{text}"
    if page == root_doc:
        listed = NAVIGATION | {"How to": NAVIGATION["How to"] + OTHERS}
        text += "".join(toctree(pages, heading) for heading, pages in listed.items())
    if page == "docs/tables":
        text += toctree(f"/{name.removesuffix('.md')}" for name in LINKED)
    source[0] = text


def as_prose(app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are prose: * and _ are letters of formulas, `x` is code, and indented lines stand as they are.

    What a sentence begins with before a colon, as `eps, norm: …`, is the name of an argument or field.
    """
    found: list[str] = []
    for indented, block in groupby(lines, lambda line: line.startswith("    ")):
        if indented:
            found += ["", "::", "", *block, ""]
            continue
        pieces = re.split(r"`([^`]+)`", "\n".join(block))
        pieces[::2] = [re.sub(r"([*_|\\`])", r"\\\1", piece) for piece in pieces[::2]]
        pieces[1::2] = [rf"\ ``{piece}``\ " for piece in pieces[1::2]]
        found += ARGUMENTS.sub(r"\1**\2**:", "".join(pieces)).split("\n")
    lines[:] = [*found, ""]


def with_short_types(app: Sphinx, what: str, name: str, documented: Any, options: Any, *texts: str | None) -> Any:
    """A signature and what it returns, in which ArrayLike is called that."""
    long = [stringify_annotation(ArrayLike, mode) for mode in ("fully-qualified-except-typing", "smart")]
    named = [re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text) if text else text for text in texts]
    for written in long:
        named = [text.replace(written, "ArrayLike") if text else text for text in named]
    return tuple(named)


def setup(app: Sphinx) -> None:
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", adapt_page)
    app.connect("autodoc-process-docstring", as_prose)
    app.connect("autodoc-process-signature", with_short_types)
