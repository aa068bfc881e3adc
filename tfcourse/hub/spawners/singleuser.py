#!/opt/course/bin/python
"""Run a learner's server without loading the hub's own code.

JupyterHub's package for servers also imports the hub's database layer and request handlers, and
with them SQLAlchemy and Alembic. Servers use none of this code, but importing it takes half the
processor time of all imports, and 36 MB of memory. This program imports JupyterHub's package with
placeholders for these modules. If that fails, for example with another version of JupyterHub, this
program starts the server with the real modules.

In an image, this file replaces the command `jupyterhub-singleuser`; `make hub` runs it with
`python -P`. Python does not search the working directory, which is the learner's home, for modules.
"""

import os
import sys
from functools import partial
from importlib import import_module
from types import ModuleType

# The unused modules, and the names that JupyterHub's other modules import from them.
UNUSED = {
    "sqlalchemy": {"func": None},
    "sqlalchemy.exc": {"SQLAlchemyError": type("SQLAlchemyError", (Exception,), {})},
    "jupyterhub.orm": {},
    "jupyterhub.handlers.pages": {"HealthCheckHandler": type("HealthCheckHandler", (), {})},
}


def load():
    """Return JupyterHub's function that runs a server, or restart with all modules if it fails."""
    placeholders = {name: ModuleType(name) for name in UNUSED}
    for name, placeholder in placeholders.items():
        vars(placeholder).update(UNUSED[name])
    sys.modules.update(placeholders)
    try:
        from jupyterhub.singleuser import main
    except Exception as error:
        reason = f"Starting with all of JupyterHub's modules, which is slower: {error!r}"
        print(reason, file=sys.stderr)
        options = sys.orig_argv[: -len(sys.argv)]
        command = [*options, "-P", "-m", "jupyterhub.singleuser", *sys.argv[1:]]
        os.execv(sys.executable, command)  # noqa: S606 - the same program
    # From here on, imports load the real modules. Placeholders that are already imported fetch any
    # missing attribute from the real module. A learner's own server extension may need this.
    for name, placeholder in placeholders.items():
        del sys.modules[name]
        placeholder.__getattr__ = partial(of_real_module, name)
    return main


def of_real_module(module, name):
    """Return an attribute of a module, importing the module first if necessary."""
    return getattr(import_module(module), name)


if __name__ == "__main__":
    sys.exit(load()())
