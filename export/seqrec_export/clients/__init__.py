"""What asks a server: the Python client, and the sources for other languages."""
