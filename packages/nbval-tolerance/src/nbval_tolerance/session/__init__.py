"""Extend a pytest session with test items that compare outputs, advice and reports."""
