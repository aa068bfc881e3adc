"""Sphinx settings for the book, which `make book` builds from the lessons' stored outputs.

We use Sphinx with MyST-NB because both install with pip and work offline. Jupyter Book 2 (mystmd)
was not an option, because it requires Node.js and downloads its theme during the first build
(https://github.com/jupyter-book/mystmd/issues/210).
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "TensorFlow in notebooks"
html_title = project
language = "en"

# The launch buttons need the repository's public URL. The repository is not public yet.
repository = os.environ.get("COURSE_REPOSITORY", "").rstrip("/")
hub = os.environ.get("COURSE_HUB_URL", "").rstrip("/")

# Use the repository as the source folder, so that links between files also work in the book.
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "notebooks/*.ipynb",
    "notebooks/*.md",
    "notebooks/exercises/*.ipynb",
    # Include these files because the instructor's guide and the README link to them.
    "README.md",
    "CONTRIBUTING.md",
    "packages/nbval-tolerance/README.md",
    "packages/nbval-tolerance/CHANGELOG.md",
    "packages/nbval-tolerance/docs/*.md",
]
exclude_patterns = [".*", "**/.*"]
extensions = ["myst_nb", "sphinx_copybutton", "figures", "folded", "hub", "live", "mathml"]

# Show the stored outputs: the build does not execute notebooks, and pages do not load ipywidgets.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True

# Parse Markdown as JupyterLab does, with the same heading anchors.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_heading_slug_func = "anchors.jupyterlab"
# The exercises are not in any table of contents; the lessons link to them instead. A test reports
# any page that nothing links to. MyST-NB does not know the MIME types of our pads and films, which
# the `live` extension handles.
suppress_warnings = ["toc.not_included", "mystnb.unknown_mime_type"]

# Browsers render MathML without scripts, and screen readers can read it.
html_math_renderer = "mathml"

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["book.css"]
html_scaled_image_link = False  # the full-size image shows little more detail
# Set each page's colour mode. Otherwise, the theme leaves it empty and then logs a warning.
html_js_files = [(None, {"body": "document.documentElement.dataset.mode ||= 'auto';"})]
html_sourcelink_suffix = ""  # offer lesson.ipynb for download, not lesson.ipynb.txt
html_show_copyright = False
html_show_sphinx = False
html_domain_indices = False
html_use_index = False
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "footer_content_items": ["extra-footer"],
    "extra_footer": "Text and figures: CC BY 4.0. Code: BSD-3-Clause.",
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if repository:
    html_theme_options |= {
        "repository_url": repository,
        "repository_branch": "main",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "jupyterhub_url": hub,
        },
    }
else:
    print("COURSE_REPOSITORY is not set: the pages have no buttons for Binder, Colab or a hub.")
