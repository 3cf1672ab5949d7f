"""For tests of your own: an engine that says what it is told to, and a small OpenAI-compatible server on loopback."""

from suffice.testing.fake_openai import FakeOpenAI, Received, Reply
from suffice.testing.scripted_engine import ScriptedEngine

__all__ = ["FakeOpenAI", "Received", "Reply", "ScriptedEngine"]
