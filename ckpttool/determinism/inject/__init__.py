"""Put on the path of traced processes; nothing here is imported by the package."""
