"""Sphinx's settings: ``python -m sphinx -W docs OUT`` builds what ``writers`` writes, without a network."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from sphinx.application import Sphinx  # noqa: E402

import writers  # noqa: E402
from accelsim.version import __version__  # noqa: E402

project = "accelsim"
copyright = "the accelsim authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "writers.api"]

# Pages that are read on a code host too: what is between ``:::`` is for Sphinx.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
highlight_language = "text"

# Whatever is installed: the reference is the same, and reading it takes seconds.
autodoc_mock_imports = ["dash", "dask", "distributed", "flask", "onnx", "plotly", "safetensors", "torch", "werkzeug"]
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_default_options |= {"exclude-members": "model_config, model_post_init"}
napoleon_google_docstring = False
napoleon_use_rtype = False

# Names in annotations are short ones, and more than one module may have a ``Plan``.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"accelsim {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Sphinx reads the pages that are written beside its own cache, not the folder that this file is in."""
    sources = Path(app.doctreedir) / "sources"
    writers.write(sources)
    app.srcdir = type(app.srcdir)(sources)
