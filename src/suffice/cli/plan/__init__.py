"""`suffice plan`."""

from suffice.cli.plan.plan import command

__all__ = ["command"]
