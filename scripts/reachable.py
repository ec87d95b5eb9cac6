"""`reachable.py HOST PORT`: can a TCP connection be made? The exit code tells."""

import socket
import sys

SECONDS_MAX = 5

try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), SECONDS_MAX).close()
except OSError:
    sys.exit(1)
