"""What the length model learns from the answers that were served."""
