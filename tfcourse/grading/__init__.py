"""Grade a folder of submissions with our solutions' checks: `make grade SUBMISSIONS=folder`.

`submission` decides what to run from a notebook, `worker` runs it in a kernel, `limits` stops
submissions that use too much, and `__main__` writes the table.
"""
