"""The entry point of this package: provides nothing yet."""
