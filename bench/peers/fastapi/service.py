"""A service that starts LiveKit sessions, as a peer of Greenroom for `cargo xtask bench peers`."""

import hashlib
import json
import os
import time
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import jwt
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request
from livekit import api
from pydantic import BaseModel, ConfigDict, Field

WORKERS = 2
EMPTY_TIMEOUT = 300
DEPARTURE_TIMEOUT = 60

# Reads the current template and inserts the session in one statement. No row: the template is
# unknown. A row without a session: the idempotency key has been used.
INSERT = """
    with template as (
        select id, agent_name, agent_metadata::text as agent_metadata, room_creation,
               join_window_seconds, token_ttl_seconds
        from templates where organization_id = $1 and id = $2 and archived_at is null
    ), inserted as (
        insert into sessions (id, organization_id, template_id, user_id, metadata, room_name, participant_identity,
                              participant_name, token_expiry, join_by, idempotency_key, request_hash)
        select $3, $1, id, $4, $5, $6, $7, $8, now() + make_interval(secs => token_ttl_seconds),
               now() + make_interval(secs => join_window_seconds), $9, $10
        from template
        on conflict (organization_id, idempotency_key) where idempotency_key is not null do nothing
        returning token_expiry, join_by
    )
    select agent_name, agent_metadata, room_creation, token_expiry, join_by
    from template left join inserted on true"""

COLUMNS = """id, template_id as session_template_id, user_id, metadata, room_name, participant_identity,
    participant_name, status, token_expiry, join_by, created_at, started_at, ended_at"""
SELECT_BY_KEY = f"""select {COLUMNS}, request_hash from sessions
    where organization_id = $1 and idempotency_key = $2"""
SELECT_BY_ID = f"select {COLUMNS} from sessions where organization_id = $1 and id = $2"
SELECT_PAGE = f"""select {COLUMNS} from sessions where organization_id = $1
    order by created_at desc, id desc limit $2 offset $3"""
ROOM_OPENED = "update sessions set room_created_at = now() where organization_id = $1 and id = $2"
ROOM_FAILED = "update sessions set status = 'failed', ended_at = now() where organization_id = $1 and id = $2"
WEBHOOKS = {
    "participant_joined": """update sessions set status = 'active', started_at = coalesce(started_at, now())
        where room_name = $1 and status = 'pending'""",
    "room_finished": """update sessions set status = 'ended', ended_at = now()
        where room_name = $1 and status in ('pending', 'active')""",
}

LIVEKIT_URL = os.environ["LIVEKIT_URL"]
API_KEY, API_SECRET = os.environ["LIVEKIT_API_KEY"], os.environ["LIVEKIT_API_SECRET"]
AUTH_SECRET = os.environ["AUTH_JWT_SECRET"]


class StartRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    session_template_id: UUID
    user_id: str | None = Field(None, min_length=1, max_length=128)
    participant_name: str | None = Field(None, min_length=1, max_length=128)
    metadata: dict[str, Any] | None = None


class StartedSession(BaseModel):
    session_id: UUID
    room_name: str
    participant_identity: str
    access_token: str
    participant_token: str
    livekit_url: str
    server_url: str
    token_expiry: datetime
    join_by: datetime


class Session(BaseModel):
    id: UUID
    session_template_id: UUID
    user_id: str | None
    metadata: dict[str, Any] | None
    room_name: str
    participant_identity: str
    participant_name: str | None
    status: str
    token_expiry: datetime
    join_by: datetime
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class Caller(BaseModel):
    org_id: UUID
    user_id: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI):
    size = max(1, int(os.environ["POOL_SIZE"]) // WORKERS)
    async with (
        asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=size, max_size=size, init=configure) as pool,
        api.LiveKitAPI(LIVEKIT_URL, API_KEY, API_SECRET) as livekit,
    ):
        app.state.pool, app.state.livekit = pool, livekit
        yield


async def configure(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


app = FastAPI(lifespan=lifespan, openapi_url=None)
webhooks = api.WebhookReceiver(api.TokenVerifier(API_KEY, API_SECRET))


async def authenticate(authorization: Annotated[str, Header()] = "") -> Caller:
    try:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer":
            raise ValueError(scheme)
        options = {"require": ["exp"]}
        return Caller(**jwt.decode(token, AUTH_SECRET, algorithms=["HS256"], options=options, leeway=10))
    except (jwt.InvalidTokenError, ValueError):
        raise HTTPException(401, "unauthenticated") from None


CallerOf = Annotated[Caller, Depends(authenticate)]


@app.get("/readyz")
async def ready() -> None:
    await app.state.pool.fetchval("select 1")


@app.post("/api/v1/sessions/start", status_code=201)
async def start_session(
    request: Request,
    body: StartRequest,
    caller: CallerOf,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> StartedSession:
    session_id = uuid7()
    user_id = caller.user_id or body.user_id
    room, identity = f"session-{session_id}", user_id or f"guest-{session_id.hex[20:]}"
    request_hash = hashlib.sha256(await request.body()).digest()
    row = await app.state.pool.fetchrow(
        INSERT, caller.org_id, body.session_template_id, session_id, user_id, body.metadata, room, identity,
        body.participant_name, idempotency_key, request_hash,
    )  # fmt: skip
    if row is None:
        raise HTTPException(404, "template_not_found")
    expiry, join_by = row["token_expiry"], row["join_by"]
    if expiry is None:
        earlier = await app.state.pool.fetchrow(SELECT_BY_KEY, caller.org_id, idempotency_key)
        if earlier["request_hash"] != request_hash:
            raise HTTPException(409, "idempotency_key_reused")
        session_id, room, identity = earlier["id"], earlier["room_name"], earlier["participant_identity"]
        expiry, join_by = earlier["token_expiry"], earlier["join_by"]
    if row["room_creation"] == "on_start":
        await open_room(caller, session_id, room, row)
    token = join_token(session_id, room, identity, expiry, body, user_id, row)
    return StartedSession(
        session_id=session_id, room_name=room, participant_identity=identity, access_token=token,
        participant_token=token, livekit_url=LIVEKIT_URL, server_url=LIVEKIT_URL, token_expiry=expiry, join_by=join_by,
    )  # fmt: skip


def uuid7() -> UUID:
    random = uuid4().int & ((1 << 74) - 1)
    milliseconds = time.time_ns() // 1_000_000
    return UUID(int=milliseconds << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & ((1 << 62) - 1))


def agents(template: asyncpg.Record) -> list[api.RoomAgentDispatch]:
    if template["agent_name"] is None:
        return []
    return [api.RoomAgentDispatch(agent_name=template["agent_name"], metadata=template["agent_metadata"])]


async def open_room(caller: Caller, session_id: UUID, room: str, template: asyncpg.Record) -> None:
    try:
        await app.state.livekit.room.create_room(
            api.CreateRoomRequest(
                name=room, empty_timeout=EMPTY_TIMEOUT, departure_timeout=DEPARTURE_TIMEOUT, agents=agents(template)
            )
        )
    except Exception as error:
        await app.state.pool.execute(ROOM_FAILED, caller.org_id, session_id)
        raise HTTPException(503, "livekit_unavailable") from error
    await app.state.pool.execute(ROOM_OPENED, caller.org_id, session_id)


def join_token(
    session_id: UUID,
    room: str,
    identity: str,
    expiry: datetime,
    body: StartRequest,
    user_id: str | None,
    template: asyncpg.Record,
) -> str:
    metadata = {
        "session_id": str(session_id), "session_template_id": str(body.session_template_id), "user_id": user_id
    }  # fmt: skip
    configuration = api.RoomConfiguration(
        empty_timeout=EMPTY_TIMEOUT, departure_timeout=DEPARTURE_TIMEOUT, agents=agents(template)
    )
    grants = api.VideoGrants(room_join=True, room=room, can_publish=True, can_subscribe=True, can_publish_data=True)
    return (
        api.AccessToken(API_KEY, API_SECRET)
        .with_identity(identity)
        .with_name(body.participant_name or "")
        .with_ttl(timedelta(seconds=expiry.timestamp() - time.time()))
        .with_grants(grants)
        .with_metadata(json.dumps(metadata))
        .with_room_config(configuration)
        .to_jwt()
    )


@app.get("/api/v1/sessions/{session_id}")
async def get_session(session_id: UUID, caller: CallerOf) -> Session:
    row = await app.state.pool.fetchrow(SELECT_BY_ID, caller.org_id, session_id)
    if row is None:
        raise HTTPException(404, "session_not_found")
    return Session.model_construct(**row)


@app.get("/api/v1/sessions")
async def list_sessions(
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[Session]:
    rows = await app.state.pool.fetch(SELECT_PAGE, caller.org_id, limit, offset)
    return [Session.model_construct(**row) for row in rows]


@app.post("/webhooks/livekit")
async def receive_webhook(request: Request, authorization: Annotated[str, Header()] = "") -> None:
    try:
        event = webhooks.receive((await request.body()).decode(), authorization)
    except Exception:
        raise HTTPException(401, "unauthenticated") from None
    if statement := WEBHOOKS.get(event.event):
        await app.state.pool.execute(statement, event.room.name)


if __name__ == "__main__":
    host, port = os.environ["LISTEN"].split(":")
    uvicorn.run(
        "service:app", host=host, port=int(port), workers=WORKERS, loop="uvloop", http="httptools",
        access_log=False, timeout_keep_alive=60, server_header=False, date_header=False,
    )  # fmt: skip
