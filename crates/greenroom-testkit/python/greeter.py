"""The demo agent. It joins the rooms of its dispatches and greets each user with a text stream that names the session.

GREETER_AGENT_NAME is the agent name. LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET name the server. The agent
needs no API key of another service.
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


def session_id(metadata):
    try:
        return json.loads(metadata)["session_id"]
    except (ValueError, KeyError, TypeError):
        return "unknown"


async def entrypoint(ctx: agents.JobContext):
    session = session_id(ctx.job.metadata)

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
            # The jobs leave their rooms as soon as the worker is stopped.
            drain_timeout=0,
            # Any free port for the health check. With the default port, a second worker on the machine fails to start.
            port=0,
            # The worker must not reject jobs because the machine is busy.
            load_threshold=float("inf"),
        )
    )
