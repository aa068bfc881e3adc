"""The parts of a pytest session with the comparison: items, report, unchanged notebooks."""
