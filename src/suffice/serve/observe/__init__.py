"""What operators see: metrics, spans, the access log, the messages of the server."""
