"""How much runs at once, and how much each key may use."""
