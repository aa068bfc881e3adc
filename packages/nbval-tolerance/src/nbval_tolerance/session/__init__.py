"""A session of pytest that has asked for the comparison: items, report, unchanged notebooks."""
