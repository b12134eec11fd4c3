"""Joins a room as a user would and stays until it is told to leave.

LIVEKIT_URL and LIVEKIT_TOKEN say where and with what. GUEST_EVENTS is a file to which it appends a line of JSON for
everything it sees; GUEST_ORDERS one from which it reads, line by line, what it is told to do.
"""

import asyncio
import json
import os
import time

from livekit import rtc

CONNECT_WITHIN = 15
BETWEEN_LOOKS = 0.05

STARTED = time.monotonic()


class Events:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1)

    def add(self, what, **details):
        ms = round((time.monotonic() - STARTED) * 1000)
        self.file.write(json.dumps({"event": what, "ms": ms, **details}) + "\n")


async def enter(events):
    room = rtc.Room()

    def on_data(packet):
        payload = packet.data.decode(errors="replace")
        sender = packet.participant.identity if packet.participant else None
        events.add("data", topic=packet.topic, payload=payload, sender=sender)

    def on_disconnected(reason):
        events.add("disconnected", reason=rtc.DisconnectReason.Name(reason))

    room.on("data_received", on_data)
    room.on("reconnecting", lambda: events.add("reconnecting"))
    room.on("reconnected", lambda: events.add("reconnected"))
    room.on("disconnected", on_disconnected)
    joining = room.connect(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"])
    await asyncio.wait_for(joining, CONNECT_WITHIN)
    me = room.local_participant
    events.add("entered", room=room.name, identity=me.identity, sid=me.sid)
    return room


async def orders(path):
    with open(path) as file:
        line = ""
        while True:
            line += file.readline()
            if line.endswith("\n"):
                yield json.loads(line)
                line = ""
            else:
                await asyncio.sleep(BETWEEN_LOOKS)


async def main():
    events = Events(os.environ["GUEST_EVENTS"])
    try:
        room = await enter(events)
        async for order in orders(os.environ["GUEST_ORDERS"]):
            match order["order"]:
                case "send":
                    await room.local_participant.publish_data(order["payload"], topic=order["topic"])
                case "reload":
                    await room.disconnect()
                    room = await enter(events)
                case "leave":
                    await room.disconnect()
                    break
        events.add("left")
    except Exception as error:
        events.add("failed", error=f"{type(error).__name__}: {error}")
    # Not an ordinary exit: the SDK's native threads now and then call into an interpreter that is going, and abort.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
