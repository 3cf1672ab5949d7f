"""The bundled model, `suffice-tiny`: a toy, but a real one. `scripts/tiny` in the repository makes it."""
