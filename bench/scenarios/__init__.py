"""The scenarios: one file each, with TITLE, TOOLS (commands it needs) and run()."""

from __future__ import annotations

# In the order in which docs/benchmarks.md tells them.
NAMES = (
    *("hello", "shop", "mixed", "overload", "static", "tls", "h2", "proxy", "edge", "idle", "slow"),
    *("reload", "upgrade", "spawn", "asgi-hello", "websocket"),
)
