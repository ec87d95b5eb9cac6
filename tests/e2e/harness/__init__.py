"""The words the stories are written in: sites, clients, raw sockets, load, databases, environments."""
