"""Grade a folder of submissions with our solutions' checks: `make grade SUBMISSIONS=folder`.

`submission` decides which cells of a notebook to run. `containers` (or `processes`, without Docker)
starts a `worker` with the resource limits in `limits`; the worker runs the cells in a kernel.
`grader` converts the worker's verdicts to rows, and `__main__` writes the table.
"""
