"""Grade a folder of submissions by the checks of our solutions: `make grade SUBMISSIONS=folder`.

`submission` decides what to run from a notebook, `worker` runs it in a kernel, `limits` stops
whatever uses too much, and `__main__` writes the table.
"""
