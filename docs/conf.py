"""How Sphinx builds these pages: `make docs`. Nothing is fetched, and a warning is an error."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from sphinx.ext.autodoc.mock import mock

import millpond

# Guests: these pages build without them, and in half of the time. (autodoc_mock_imports is over before all is read.)
WITHOUT_GUESTS = mock(["ray", "torch"])
WITHOUT_GUESTS.__enter__()

project = "millpond"
author = "the millpond authors"
version = release = version_of("millpond")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
smartquotes_action = "D"  # dashes; quotes that people copy, or search for, are straight
maximum_signature_line_length = 100
default_role = "code"  # docstrings write `name` as Markdown does
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!millpond).*"),  # names of other projects: their inventories are on the net
    (r"py:.*", r"millpond\._.*"),  # types of arguments that are no public names
]

html_theme = "furo"
html_title = "millpond"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

PUBLIC = {name: f"millpond.{name}" for name in millpond.__all__} | {
    name: f"millpond.torch.{name}" for name in ("DataLoader", "DataLoaderStatistics")
}


def _by_public_name(app: Any, environment: Any, node: Any, content: Any) -> Any:
    """Links what docstrings and annotations name, by whatever module it is defined in, to where it is documented."""
    target = PUBLIC.get(node["reftarget"].rsplit(".", 1)[-1])
    if target is None or node["refdomain"] != "py":
        return None
    domain = environment.domains["py"]
    return domain.resolve_xref(environment, node["refdoc"], app.builder, "obj", target, node, content)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("missing-reference", _by_public_name)
