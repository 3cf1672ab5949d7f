"""One request on its way through the server: read (`ApiRequest`), accepted (`RequestState`), answered (`Choices`)."""
