"""What `reliability.py` is made of."""
