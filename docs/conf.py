"""Sphinx settings. Nothing here needs the network: the documentation builds offline."""

from importlib.metadata import version as installed_version

project = "tracesvc"
author = "The tracesvc developers"
copyright = "2026, The tracesvc developers"
release = version = installed_version("tracesvc")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"tracesvc {release}"

autodoc_typehints = "description"
# Types of other projects cannot be looked up without the network; our own must resolve.
nitpick_ignore_regex = [
    ("py:.*", r"(trio|collections|contextlib|typing|pathlib|os|re)\..*"),
    ("py:exc", "FormatError"),
]

# In "Raises" they stand as one catches them, without their module.
nitpick_ignore = [("py:exc", name) for name in ("FormatError", "NotFoundError", "QueryError")]
# Written out elsewhere: the vocabulary in events.md, frames in format.md, options with their class.
nitpick_ignore += [
    ("py:class", name)
    for name in (
        "Compression",
        "Event",
        "LossCause",
        "OverheadStatistics",
        "OptionKeywords",
        "tracesvc.events.LossCause",
        "tracesvc.format.frames.Frame",
        "tracesvc.recorder.proc.Proc",
    )
]
