"""Extend a pytest session with test items, advice and reports."""
