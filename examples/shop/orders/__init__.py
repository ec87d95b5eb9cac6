"""The basket in the session, checkout, and orders."""
