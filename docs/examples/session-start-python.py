#!/usr/bin/env python3
"""Starts a session from Python, with nothing but its own library, and shows what to do when it fails.

GREENROOM_URL    where Greenroom is, such as http://127.0.0.1:8080
GREENROOM_TOKEN  a backend's token: greenroom token --org <UUID>
"""

import json
import os
import time
import urllib.error
import urllib.request
import uuid

URL = os.environ["GREENROOM_URL"]
TOKEN = os.environ["GREENROOM_TOKEN"]
ATTEMPTS = 3


class Refused(Exception):
    """A failure of Greenroom's, by its stable code."""

    def __init__(self, problem):
        super().__init__(f"{problem['code']}: {problem['detail']} (request {problem['request_id']})")
        self.code = problem["code"]
        self.errors = problem.get("errors", [])


def call(method, path, body=None, key=None):
    """Calls Greenroom, again where that may help, and returns what it answers.

    A start that is sent again is the same session by its key: an attempt whose answer got lost may have started it.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    for attempt in range(1, ATTEMPTS + 1):
        request = urllib.request.Request(URL + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as failure:
            problem = problem_of(failure)
            if not problem["retryable"] or attempt == ATTEMPTS:
                raise Refused(problem) from None
            time.sleep(int(failure.headers["Retry-After"]))
        except (urllib.error.URLError, TimeoutError) as unreachable:
            raise SystemExit(f"Greenroom is not at {URL}: {unreachable}") from None


def problem_of(failure):
    """What a failed answer says; something else than Greenroom may have given it."""
    if failure.headers.get_content_type() != "application/problem+json":
        raise SystemExit(f"{URL} answered {failure.code}, and not as Greenroom does")
    return json.load(failure)


def main():
    template = call("POST", "/api/v1/session-templates", {"name": f"python example {uuid.uuid4()}", "modality_profile": "audio"})
    print("template ", template["id"])

    request = {"session_template_id": template["id"], "user_id": "ann"}
    started = call("POST", "/api/v1/sessions/start", request, key=str(uuid.uuid4()))
    print("session  ", started["session_id"])
    print("room     ", started["room_name"])
    print("connect  ", started["server_url"])
    print("join by  ", started["join_by"])

    session = call("GET", f"/api/v1/sessions/{started['session_id']}")
    print("status   ", session["status"])

    try:
        call("POST", "/api/v1/sessions/start", {"session_template_id": str(uuid.uuid4())})
    except Refused as refused:
        print("refused  ", refused.code)


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        raise SystemExit(refused) from None
