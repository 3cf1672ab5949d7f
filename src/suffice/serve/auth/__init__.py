"""API keys, permissions and tiers."""
