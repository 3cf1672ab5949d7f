"""`suffice profile`."""

from suffice.cli.profile.profile import command

__all__ = ["command"]
