"""Who sent a request, and what they may ask for: API keys, permissions, tiers."""
