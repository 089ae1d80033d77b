"""PostgreSQL broker and result backend for Stem."""
