"""Redis and Valkey broker and result backend for Stem.

Found through the entry point ``stem_redis.plugin``; there is nothing to import here. ``keys`` documents
every key kept in the server, ``scripts/`` holds the Lua that changes them.
"""
