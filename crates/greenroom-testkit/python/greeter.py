"""The demo agent: joins the rooms it is sent to and greets their users with a text stream that names the session.

GREETER_AGENT_NAME, LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say who and where. It needs no other keys.
"""

import asyncio
import json
import os

from livekit import agents, rtc


async def greet(ctx, session, participant):
    await ctx.room.local_participant.send_text(
        f"Hello {participant.name or participant.identity}, this is session {session}.",
        topic="lk.chat",
        destination_identities=[participant.identity],
    )


def session_of(metadata):
    try:
        return json.loads(metadata)["session_id"]
    except (ValueError, KeyError, TypeError):
        return "unknown"


async def entrypoint(ctx: agents.JobContext):
    session = session_of(ctx.job.metadata)

    async def on_user(ctx, participant):
        await greet(ctx, session, participant)

    ctx.add_participant_entrypoint(on_user)
    await ctx.connect()


if __name__ == "__main__":
    agents.cli.run_app(
        agents.WorkerOptions(
            entrypoint_fnc=entrypoint,
            agent_name=os.environ["GREETER_AGENT_NAME"],
            num_idle_processes=0,
            # When it is stopped, its jobs leave their rooms at once.
            drain_timeout=0,
            # Any free port for its health check: with the default a second worker on the machine dies.
            port=0,
            # A busy machine must not make it refuse jobs.
            load_threshold=float("inf"),
        )
    )
