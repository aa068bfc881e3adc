"""Add the course's pages and accounts to the hub of the Zero to JupyterHub chart.

The chart's hub loads this file after its own configuration and before `hub.extraConfig`. In our hub
image, the file is in /usr/local/etc/jupyterhub/jupyterhub_config.d. The section "The course's own
pages and accounts" of docs/kubernetes.md explains it.
"""

from tfcourse.hub.spawners import pods

pods.configure(c)  # noqa: F821 - the chart defines it
