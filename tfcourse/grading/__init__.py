"""Grade a folder of submissions with our solutions' checks: `make grade SUBMISSIONS=folder`.

`submission` decides which of a notebook's cells to run. `containers`, or `processes` if there is no
Docker, starts a `worker` under `limits`, and the worker runs the cells in a kernel. `grader` turns
the worker's verdicts into rows, and `__main__` writes the table.
"""
