"""What is written down: a row for each request, texts where they are wanted, and questions about usage."""
