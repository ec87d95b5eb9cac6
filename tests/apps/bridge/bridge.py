"""An ASGI app that asks another process: what the server hands it goes to a unix socket, what comes back is done.

The suites of other servers keep their apps in the test's own process, and look into them. With this in a worker they can go
on doing so: everything between the client's socket and the app's three arguments is quintet's, only the call is
remote. BRIDGE names the socket; the other end is tests/contract/shims/bridging.py. Frames: four bytes of length, then a pickled
`(kind, number, payload)`.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """One exchange: as long as the app at the other end wants."""
    if scope["type"] == "lifespan" and "BRIDGE_LIFESPAN" not in os.environ:
        raise RuntimeError("these tests know of no lifespan")
    reader, writer = await asyncio.open_unix_connection(os.environ["BRIDGE"])
    asked: dict[int, asyncio.Task[None]] = {}

    def write(kind: str, number: int, payload: Any) -> None:
        data = pickle.dumps((kind, number, payload))
        writer.write(len(data).to_bytes(4, "big") + data)

    async def carry_out(kind: str, number: int, payload: Any) -> None:
        try:
            result = await receive() if kind == "receive" else await send(payload)
        except (OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
            write("error", number, ("os" if isinstance(error, OSError) else "other", repr(error)))
        else:
            write("result", number, result)
        finally:
            asked.pop(number, None)

    try:
        write("scope", 0, _portable(scope))
        while True:
            length = int.from_bytes(await reader.readexactly(4), "big")
            kind, number, payload = pickle.loads(await reader.readexactly(length))
            if kind in {"receive", "send"}:
                asked[number] = asyncio.create_task(carry_out(kind, number, payload))
            elif kind == "cancel":
                if number in asked:
                    asked[number].cancel()
            elif kind == "raised":
                raise RuntimeError(payload)
            else:
                return
    except asyncio.IncompleteReadError:
        raise RuntimeError("the other end of the bridge is gone") from None
    finally:
        for task in list(asked.values()):
            task.cancel()
        writer.close()


def _portable(scope: dict[str, Any]) -> dict[str, Any]:
    """What can travel: an extension may hold objects."""
    kept = {}
    for key, value in scope.items():
        try:
            pickle.dumps(value)
        except (pickle.PicklingError, TypeError, AttributeError):
            continue
        kept[key] = value
    return kept
