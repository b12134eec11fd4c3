"""Joins a room as a user would, waits for the agent's greeting, and writes a JSON document saying what happened.

LIVEKIT_URL and LIVEKIT_TOKEN say where and with what, USER_REPORT where the document goes: not to standard output,
where the SDK's native threads write, too. Exits 0 when it could tell, also of a refusal.
"""

import argparse
import asyncio
import json
import os
import time

from livekit import rtc

CONNECT_WITHIN = 15
PUBLISH_WITHIN = 5


def audio_track():
    return rtc.LocalAudioTrack.create_audio_track("microphone", rtc.AudioSource(48_000, 1))


def video_track():
    return rtc.LocalVideoTrack.create_video_track("camera", rtc.VideoSource(320, 240))


TRACKS = {
    "microphone": (audio_track, rtc.TrackSource.SOURCE_MICROPHONE),
    "camera": (video_track, rtc.TrackSource.SOURCE_CAMERA),
}


async def publish(room, what):
    make, source = TRACKS[what]
    publishing = room.local_participant.publish_track(make(), rtc.TrackPublishOptions(source=source))
    await asyncio.wait_for(publishing, PUBLISH_WITHIN)


async def main(arguments):
    report = dict.fromkeys(
        "connected_ms room identity metadata agent_identity greeting greeting_ms can_publish published error".split()
    )
    report["connected"] = False
    room = rtc.Room()
    greeted = asyncio.Event()
    started = time.monotonic()
    reading = set()

    def elapsed():
        return round((time.monotonic() - started) * 1000)

    async def read(reader, identity):
        greeting = await reader.read_all()
        report.update(greeting=greeting, greeting_ms=elapsed(), agent_identity=identity)
        greeted.set()

    def on_greeting(reader, identity):
        task = asyncio.create_task(read(reader, identity))
        reading.add(task)
        task.add_done_callback(reading.discard)

    # Before connecting: the agent may be in the room already, and greets whom it sees coming.
    room.register_text_stream_handler("lk.chat", on_greeting)
    try:
        joining = room.connect(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"])
        await asyncio.wait_for(joining, CONNECT_WITHIN)
        me = room.local_participant
        report.update(connected=True, connected_ms=elapsed(), room=room.name, identity=me.identity)
        report.update(metadata=me.metadata, can_publish=me.permissions.can_publish if me.permissions else None)
        # First of all: LiveKit tells the others at once of who publishes, and of a listener up to three seconds later.
        if arguments.publish:
            report["published"] = False
            await publish(room, arguments.publish)
            report["published"] = True
        if arguments.greeting_within:
            await asyncio.wait_for(greeted.wait(), arguments.greeting_within)
    except Exception as error:
        report["error"] = f"{type(error).__name__}: {error}"
    finally:
        await room.disconnect()
    with open(os.environ["USER_REPORT"], "w") as file:
        json.dump(report, file)
    # Not an ordinary exit: the SDK's native threads now and then call into an interpreter that is going, and abort.
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--greeting-within", type=float, default=10, help="seconds; 0 does not wait for one")
    parser.add_argument("--publish", choices=TRACKS, help="publish a track of this kind, too")
    asyncio.run(main(parser.parse_args()))
