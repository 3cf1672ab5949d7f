"""Is this answer still going somewhere? Stop words and incremental text."""

from suffice.watch.text import IncrementalDecoder, StopMatch, StopWords, TextSeam

__all__ = ["IncrementalDecoder", "StopMatch", "StopWords", "TextSeam"]
