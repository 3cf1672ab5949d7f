"""`suffice doctor`."""

from suffice.cli.doctor.doctor import command

__all__ = ["command"]
