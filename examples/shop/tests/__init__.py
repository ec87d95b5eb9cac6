"""Tests of the shop itself, with Django's own client."""
