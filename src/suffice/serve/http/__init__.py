"""HTTP mechanics: routing, request bodies, errors, server-sent events, connections. Knows no model and no API."""
