"""Signing up; logging in and out is Django's own."""
