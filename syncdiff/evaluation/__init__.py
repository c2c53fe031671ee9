"""Measuring results. Imported by nothing else in the package."""
