"""Compare pictures, PNG and similar formats in blocks, and SVG by its elements. Pure functions."""
