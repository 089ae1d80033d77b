"""Redis and Valkey broker and result backend for Stem."""
