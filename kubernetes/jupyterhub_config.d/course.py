"""Add the course's pages and accounts to the hub of the Zero to JupyterHub chart.

The chart's hub loads this file after its own configuration and before `hub.extraConfig`. Our hub
image contains the file in /usr/local/etc/jupyterhub/jupyterhub_config.d. For details, see "The
course's own pages and accounts" in docs/kubernetes.md.
"""

from tfcourse.hub.spawners import pods

pods.configure(c)  # noqa: F821 - the chart defines it
