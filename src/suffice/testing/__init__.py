"""For the tests of your own programs: an engine that answers from a script, and a fake OpenAI server on loopback."""

from suffice.testing.fake_openai import FakeOpenAI, Received, Reply
from suffice.testing.scripted_engine import ScriptedEngine

__all__ = ["FakeOpenAI", "Received", "Reply", "ScriptedEngine"]
