"""The interactive chat of `suffice infer`."""

from suffice.cli.infer.chat.loop import chat

__all__ = ["chat"]
