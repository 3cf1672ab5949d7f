"""Where a model is, and loading it: folders, hubs, adapters, tokenizers. Knows nothing about generating."""
