"""A Stem broker in a JSON file."""
