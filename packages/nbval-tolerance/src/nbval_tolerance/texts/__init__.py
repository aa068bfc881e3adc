"""Parse a printed text: lines, numbers, kinds, and the parts to ignore. Pure functions."""
