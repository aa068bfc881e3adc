"""Pictures, compared: PNG and the like in blocks, SVG by its elements. Pure functions."""
