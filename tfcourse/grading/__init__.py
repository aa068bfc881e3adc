"""Grade a folder of submissions with our solutions' checks: `make grade SUBMISSIONS=folder`.

`submission` decides what to run from a notebook. `containers`, or without Docker `processes`, run
it: they start a `worker`, which has the kernel, under `limits`. `grader` makes rows of what the
worker says, and `__main__` writes the table.
"""
