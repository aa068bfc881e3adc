"""For every kernel of this environment."""

c = get_config()  # noqa: F821 - IPython defines it

# TensorFlow's C++ side logs to file descriptor 2 at every import (oneDNN, CPU features, a missing
# GPU). A notebook would show that in red. Python's own warnings still reach the learner; these
# lines go where a server's log belongs, to the terminal or file that the Jupyter server writes.
c.IPKernelApp.capture_fd_output = False
