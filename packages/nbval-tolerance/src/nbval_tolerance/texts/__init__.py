"""Parse printed text: lines, numbers, kinds of numbers, and parts to ignore. Pure functions."""
