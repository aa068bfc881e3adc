"""Settings for every kernel in this environment."""

c = get_config()  # noqa: F821 - IPython defines it

# TensorFlow's C++ code logs to file descriptor 2 at every import (oneDNN, CPU features, a missing
# GPU). A notebook would show these lines in red. With this setting, the lines go to the Jupyter
# server's log, in a terminal or a file. Python's own warnings still reach the learner.
c.IPKernelApp.capture_fd_output = False
