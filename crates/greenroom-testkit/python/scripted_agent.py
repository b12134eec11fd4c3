"""An agent for tests with configurable behaviour: slow, at its job limit, overloaded, or leaving early.

LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET name the server. The other variables are:

SCRIPTED_AGENT_NAME            the agent name
SCRIPTED_AGENT_DIRECTORY       a directory; each job that starts appends a line of JSON to its file `jobs`, the worker
                               reads its load from its file `load`, and each status report to LiveKit appends its load
                               to its file `reports`
SCRIPTED_AGENT_JOIN_DELAY      (optional) seconds until a job joins its room; "never": it never joins
SCRIPTED_AGENT_MAX_JOBS        (optional) maximum number of concurrent jobs
SCRIPTED_AGENT_LEAVE_AFTER     (optional) seconds from a user's arrival until the agent leaves; "join": it leaves as
                               soon as it has joined
SCRIPTED_AGENT_IDLE_PROCESSES  (optional) number of processes that the worker keeps ready; the default is 0

A data packet with the topic "hangup" also makes the agent leave.
"""

import asyncio
import json
import os
import pathlib
import time

from livekit import agents

DIRECTORY = pathlib.Path(os.environ["SCRIPTED_AGENT_DIRECTORY"])


async def wait_before_joining():
    seconds = os.environ.get("SCRIPTED_AGENT_JOIN_DELAY", "0")
    if seconds == "never":
        await asyncio.Event().wait()
    await asyncio.sleep(float(seconds))


async def entrypoint(ctx: agents.JobContext):
    job = {
        "id": ctx.job.id,
        "dispatch_id": ctx.job.dispatch_id,
        "room": ctx.job.room.name,
        "metadata": ctx.job.metadata,
        "started_ms": time.time_ns() // 1_000_000,
    }
    # A single write, so that jobs that start at the same time do not interleave their lines.
    with open(DIRECTORY / "jobs", "a") as jobs:
        jobs.write(json.dumps(job) + "\n")
    await wait_before_joining()
    leave_after = os.environ.get("SCRIPTED_AGENT_LEAVE_AFTER")

    def on_data(packet):
        if packet.topic == "hangup":
            ctx.shutdown("received a data packet with the topic hangup")

    async def on_user(ctx, participant):
        await asyncio.sleep(float(leave_after))
        ctx.shutdown("SCRIPTED_AGENT_LEAVE_AFTER has passed")

    ctx.room.on("data_received", on_data)
    if leave_after not in (None, "join"):
        ctx.add_participant_entrypoint(on_user)
    await ctx.connect()
    if leave_after == "join":
        ctx.shutdown("SCRIPTED_AGENT_LEAVE_AFTER is join")


class JobLimit:
    """Limits the jobs that run or were accepted and will run soon."""

    def __init__(self, max_jobs):
        self.max_jobs = max_jobs
        self.accepted = set()

    def is_reached(self):
        running = {running.job.id for running in worker.active_jobs}
        return self.max_jobs is not None and len(running | self.accepted) >= self.max_jobs

    async def on_request(self, request):
        if self.is_reached():
            # With `terminate`, LiveKit would consider the job done instead of asking another worker.
            await request.reject(terminate=False)
            return
        self.accepted.add(request.id)
        try:
            await request.accept()
        finally:
            self.accepted.discard(request.id)


class ReportingServer(agents.AgentServer):
    """A worker that records the loads it has reported to LiveKit."""

    async def _update_worker_status(self):
        # The worker may measure its load for the first time only after its first report.
        reported = self._worker_load
        await super()._update_worker_status()
        with open(DIRECTORY / "reports", "a") as reports:
            reports.write(json.dumps(reported) + "\n")


def load():
    return float((DIRECTORY / "load").read_text())


if __name__ == "__main__":
    max_jobs = os.environ.get("SCRIPTED_AGENT_MAX_JOBS")
    job_limit = JobLimit(int(max_jobs) if max_jobs else None)
    worker = ReportingServer.from_server_options(
        agents.WorkerOptions(
            entrypoint_fnc=entrypoint,
            request_fnc=job_limit.on_request,
            load_fnc=load,
            agent_name=os.environ["SCRIPTED_AGENT_NAME"],
            num_idle_processes=int(os.environ.get("SCRIPTED_AGENT_IDLE_PROCESSES", "0")),
            # The jobs leave their rooms as soon as the worker is stopped.
            drain_timeout=0,
            # Any free port for the health check. With the default port, a second worker on the machine fails to start.
            port=0,
            # The worker never rejects a job because of its load. It reports the load, and LiveKit decides.
            load_threshold=float("inf"),
        )
    )
    agents.cli.run_app(worker)
