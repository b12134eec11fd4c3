"""An agent for tests, which behaves as it is told: slow, full, overloaded, or leaving of its own accord.

ACTOR_AGENT_NAME, LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say who and where. The rest is optional:

ACTOR_BOOT          seconds before a job joins its room; "never": it does not
ACTOR_MAX_JOBS      how many jobs it takes at the same time
ACTOR_STAYS         seconds after its first user came until it leaves; "none": it leaves as soon as it has joined
ACTOR_IDLE          how many processes it keeps warm; 0 when not given
ACTOR_STAGE         a directory: it appends a line of JSON to `jobs` there for each job it begins, and reads its load
                    from `load`

Whoever sends a data packet of the topic "hangup" makes it leave, too.
"""

import asyncio
import json
import os
import pathlib

from livekit import agents

STAGE = pathlib.Path(os.environ["ACTOR_STAGE"])


async def boot():
    seconds = os.environ.get("ACTOR_BOOT", "0")
    if seconds == "never":
        await asyncio.Event().wait()
    await asyncio.sleep(float(seconds))


async def entrypoint(ctx: agents.JobContext):
    job = {"id": ctx.job.id, "dispatch_id": ctx.job.dispatch_id, "room": ctx.job.room.name, "metadata": ctx.job.metadata}
    # One write, so that jobs that begin at the same time do not mix their lines.
    with open(STAGE / "jobs", "a") as jobs:
        jobs.write(json.dumps(job) + "\n")
    await boot()
    stays = os.environ.get("ACTOR_STAYS")

    def on_data(packet):
        if packet.topic == "hangup":
            ctx.shutdown("it was told to hang up")

    async def on_user(ctx, participant):
        await asyncio.sleep(float(stays))
        ctx.shutdown("it stayed as long as it was told to")

    ctx.room.on("data_received", on_data)
    if stays not in (None, "none"):
        ctx.add_participant_entrypoint(on_user)
    await ctx.connect()
    if stays == "none":
        ctx.shutdown("it was told not to stay")


class Places:
    """How many jobs it takes: those that run, and those that were accepted and do not run yet."""

    def __init__(self, most):
        self.most = most
        self.accepted = set()

    def full(self):
        running = {running.job.id for running in worker.active_jobs}
        return self.most is not None and len(running | self.accepted) >= self.most

    async def request(self, request):
        if self.full():
            # Not `terminate`, which tells LiveKit that the job was done: only that it cannot be done here.
            await request.reject(terminate=False)
            return
        self.accepted.add(request.id)
        try:
            await request.accept()
        finally:
            self.accepted.discard(request.id)


def load():
    return float((STAGE / "load").read_text())


if __name__ == "__main__":
    most = os.environ.get("ACTOR_MAX_JOBS")
    places = Places(int(most) if most else None)
    worker = agents.AgentServer.from_server_options(
        agents.WorkerOptions(
            entrypoint_fnc=entrypoint,
            request_fnc=places.request,
            load_fnc=load,
            agent_name=os.environ["ACTOR_AGENT_NAME"],
            num_idle_processes=int(os.environ.get("ACTOR_IDLE", "0")),
            # When it is stopped, its jobs leave their rooms at once.
            drain_timeout=0,
            # Any free port for its health check: with the default a second worker on the machine dies.
            port=0,
            # It never refuses a job for its load: LiveKit, which is told the load, decides.
            load_threshold=float("inf"),
        )
    )
    agents.cli.run_app(worker)
