"""The request log: a row for each request, optionally the texts, and queries about usage."""
