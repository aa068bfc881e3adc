"""Compare pictures: PNG and similar formats in blocks, SVG by its elements. Pure functions."""
