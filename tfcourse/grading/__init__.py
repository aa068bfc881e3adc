"""Grade a folder of submissions by the checks of our solutions: `make grade SUBMISSIONS=folder`.

`submission` says what is run of a notebook, `worker` runs it in a kernel, `limits` stops what takes
too much, and `__main__` writes the table.
"""
