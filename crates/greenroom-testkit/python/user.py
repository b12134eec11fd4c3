"""Joins a room as a user, waits for the agent's greeting, leaves, and writes a report as a JSON document.

LIVEKIT_URL and LIVEKIT_TOKEN name the server and the token. USER_REPORT is the file for the report. The report does not
go to standard output, because the SDK's native threads write there. The program exits with status 0 if it could write
the report, even if LiveKit refused the user.
"""

import argparse
import asyncio
import json
import os
import time

from livekit import rtc

CONNECT_TIMEOUT_SECONDS = 15
PUBLISH_TIMEOUT_SECONDS = 5


def audio_track():
    return rtc.LocalAudioTrack.create_audio_track("microphone", rtc.AudioSource(48_000, 1))


def video_track():
    return rtc.LocalVideoTrack.create_video_track("camera", rtc.VideoSource(320, 240))


TRACKS = {
    "microphone": (audio_track, rtc.TrackSource.SOURCE_MICROPHONE),
    "camera": (video_track, rtc.TrackSource.SOURCE_CAMERA),
}


async def publish(room, name):
    create_track, source = TRACKS[name]
    publishing = room.local_participant.publish_track(create_track(), rtc.TrackPublishOptions(source=source))
    await asyncio.wait_for(publishing, PUBLISH_TIMEOUT_SECONDS)


async def main(arguments):
    report = dict.fromkeys(
        "connected_ms room identity metadata agent_identity greeting greeting_ms can_publish published error".split()
    )
    report["connected"] = False
    room = rtc.Room()
    greeted = asyncio.Event()
    started = time.monotonic()
    read_tasks = set()

    def elapsed_ms():
        return round((time.monotonic() - started) * 1000)

    async def read(reader, identity):
        greeting = await reader.read_all()
        report.update(greeting=greeting, greeting_ms=elapsed_ms(), agent_identity=identity)
        greeted.set()

    def on_greeting(reader, identity):
        task = asyncio.create_task(read(reader, identity))
        read_tasks.add(task)
        task.add_done_callback(read_tasks.discard)

    # Register before connecting: an agent that is already in the room sends its greeting as soon as the user joins.
    room.register_text_stream_handler("lk.chat", on_greeting)
    try:
        connecting = room.connect(os.environ["LIVEKIT_URL"], os.environ["LIVEKIT_TOKEN"])
        await asyncio.wait_for(connecting, CONNECT_TIMEOUT_SECONDS)
        user = room.local_participant
        report.update(connected=True, connected_ms=elapsed_ms(), room=room.name, identity=user.identity)
        report.update(metadata=user.metadata, can_publish=user.permissions.can_publish if user.permissions else None)
        # Publish first: LiveKit announces a publisher to the others at once, and a listener up to three seconds later.
        if arguments.publish:
            report["published"] = False
            await publish(room, arguments.publish)
            report["published"] = True
        if arguments.greeting_timeout:
            await asyncio.wait_for(greeted.wait(), arguments.greeting_timeout)
    except Exception as error:
        report["error"] = f"{type(error).__name__}: {error}"
    finally:
        await room.disconnect()
    with open(os.environ["USER_REPORT"], "w") as file:
        json.dump(report, file)
    # Skip Python's normal exit: a native thread of the SDK may call into the exiting interpreter and abort.
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--greeting-timeout", type=float, default=10, help="seconds; 0 means do not wait")
    parser.add_argument("--publish", choices=TRACKS, help="also publish a track of this kind")
    asyncio.run(main(parser.parse_args()))
