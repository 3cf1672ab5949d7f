"""The remote engine: any server that speaks OpenAI's API."""

from suffice.engines.openai.engine import RemoteEngine

__all__ = ["RemoteEngine"]
