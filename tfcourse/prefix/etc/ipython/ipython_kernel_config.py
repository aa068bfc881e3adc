"""Settings for all IPython kernels in this environment."""

c = get_config()  # noqa: F821 - IPython defines it

# When TensorFlow is imported, its C++ code logs to file descriptor 2 (about oneDNN, CPU features
# and missing GPUs). By default, notebooks would show these messages in red. With this setting, they
# appear only in the Jupyter server's log. Python warnings are still shown to the learner.
c.IPKernelApp.capture_fd_output = False
