"""Everything that the comparison adds to a pytest session: test items, advice and reports."""
