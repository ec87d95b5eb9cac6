"""The smallest Django site that a server can be measured with."""
