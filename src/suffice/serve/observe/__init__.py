"""What operators see: metrics, spans, the access log."""
