"""Joins a room as a user and stays until a command makes it leave.

LIVEKIT_URL and LIVEKIT_TOKEN name the server and the token. The program appends a line of JSON for each event to the
file PARTICIPANT_EVENTS, and reads its commands from the lines of the file PARTICIPANT_COMMANDS.
"""

import asyncio
import json
import os
import time

from livekit import rtc

CONNECT_TIMEOUT_SECONDS = 15
POLL_INTERVAL_SECONDS = 0.05

STARTED = time.monotonic()


class Events:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1)

    def add(self, event, **details):
        ms = round((time.monotonic() - STARTED) * 1000)
        self.file.write(json.dumps({"event": event, "ms": ms, **details}) + "\n")


async def join(events):
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
    connecting = room.connect(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"])
    await asyncio.wait_for(connecting, CONNECT_TIMEOUT_SECONDS)
    participant = room.local_participant
    events.add("joined", room=room.name, identity=participant.identity, sid=participant.sid)
    return room


async def read_commands(path):
    with open(path) as file:
        line = ""
        while True:
            line += file.readline()
            if line.endswith("\n"):
                yield json.loads(line)
                line = ""
            else:
                await asyncio.sleep(POLL_INTERVAL_SECONDS)


async def main():
    events = Events(os.environ["PARTICIPANT_EVENTS"])
    try:
        room = await join(events)
        async for command in read_commands(os.environ["PARTICIPANT_COMMANDS"]):
            match command["command"]:
                case "send_data":
                    await room.local_participant.publish_data(command["payload"], topic=command["topic"])
                case "reload":
                    await room.disconnect()
                    room = await join(events)
                case "leave":
                    await room.disconnect()
                    break
        events.add("left")
    except Exception as error:
        events.add("failed", error=f"{type(error).__name__}: {error}")
    # Skip Python's normal exit: a native thread of the SDK may call into the exiting interpreter and abort.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
