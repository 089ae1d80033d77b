"""Running workers in production: several processes, reloading, health, metrics, logs. Nothing here is a port."""
