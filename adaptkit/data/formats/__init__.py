"""Readers of data formats, a file each."""
