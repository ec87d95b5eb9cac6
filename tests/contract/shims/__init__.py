"""Pytest plugins for other people's suites: each starts quintet where the suite would start its own server."""
