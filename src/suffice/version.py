"""The version of Suffice: a leaf, so that every room may read it."""

__version__ = "0.1.0"
