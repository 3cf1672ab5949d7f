"""Length constraints in a prompt ("in 50 words", 三点): finding them in English and in Chinese."""
