"""The API: what its routes read, and the responses that they write."""
