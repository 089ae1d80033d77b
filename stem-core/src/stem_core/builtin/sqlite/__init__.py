"""The SQLite adapters: durable, many processes on one host, no server."""
