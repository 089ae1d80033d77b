"""What ships with the core: the memory and SQLite adapters and the JSON encoder, an ordinary plugin."""
