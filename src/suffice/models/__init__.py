"""The bundled model, `suffice-tiny`: a toy, but a real model. `scripts/tiny` in the repository makes it."""
