"""How the bundled model is made: text, tokenizer, training, measurement: `python -m tiny`."""
