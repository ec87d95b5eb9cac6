"""The project: settings, the URLs of all rooms, the WSGI callable."""
