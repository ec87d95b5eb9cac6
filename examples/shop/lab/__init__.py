"""Pages for trying out a server: a short one, a slow one, one that fails."""
