"""The bundled model, `suffice-tiny`: a toy, but a real one. `tiny/` holds it, `make/` makes it."""
