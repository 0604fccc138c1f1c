"""How the site is built: `tox -e docs`."""

from importlib.metadata import version as installed_version

project = "ckpttool"
author = "The ckpttool maintainers"
release = version = installed_version("ckpttool")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "ckpttool"
html_copy_source = False
html_show_sphinx = False
