"""Grade a folder of submissions with our solutions' checks: `make grade SUBMISSIONS=folder`.

The `submission` module decides which cells of a notebook to run. The `containers` module (or
`processes`, if Docker is not used) starts a `worker`, whose resources `limits` restricts. The
worker runs the cells in a kernel. The `grader` module converts the worker's verdicts to table rows,
and `__main__` writes the table.
"""
