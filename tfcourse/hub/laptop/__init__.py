"""JupyterHub for a single computer, started from a terminal with `make hub`."""
