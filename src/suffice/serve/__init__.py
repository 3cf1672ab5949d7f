"""The HTTP server: OpenAI's API and the tiers, on a local model or in front of OpenAI-compatible servers."""

from __future__ import annotations

from suffice.serve.config import ServeSettings, load_serve_settings

__all__ = ["ServeSettings", "load_serve_settings"]
