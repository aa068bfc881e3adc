"""JupyterHub on one machine, for the person at its terminal: `make hub`."""
