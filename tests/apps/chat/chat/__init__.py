"""A project with Django Channels, as its tutorial teaches it; nothing in it knows of quintet."""
