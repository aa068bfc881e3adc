"""Operators' commands for the containerised hub."""
