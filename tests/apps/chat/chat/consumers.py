"""Consumers of both kinds."""

from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer


class Room(AsyncJsonWebsocketConsumer):
    """Whoever is in the room hears what is said there."""

    async def connect(self) -> None:
        """Come in, under the name of the session."""
        self.room = self.scope["url_route"]["kwargs"]["name"]
        self.name = self.scope["session"].get("name", "nobody")
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def receive_json(self, content: Any, **_: Any) -> None:
        """Tell all, or leave."""
        if content == "leave":
            await self.close(code=4000, reason="good bye")
        else:
            await self.channel_layer.group_send(self.room, {"type": "said", "by": self.name, "what": content})

    async def said(self, event: dict[str, Any]) -> None:
        """Somebody said something."""
        await self.send_json({"by": event["by"], "what": event["what"]})

    async def disconnect(self, code: int) -> None:
        """The others hear of it."""
        await self.channel_layer.group_discard(self.room, self.channel_name)
        await self.channel_layer.group_send(
            self.room, {"type": "said", "by": self.name, "what": f"left with {code}"}
        )


class Echo(WebsocketConsumer):
    """Without async: runs in a thread."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Back to where it came from."""
        self.send(text_data=text_data, bytes_data=bytes_data)
