"""`suffice infer`."""

from suffice.cli.infer.infer import command

__all__ = ["command"]
