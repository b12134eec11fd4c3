#!/usr/bin/env python3
"""Starts a session with only Python's standard library, and shows how to handle errors.

GREENROOM_URL    the base URL of Greenroom, such as http://127.0.0.1:8080
GREENROOM_TOKEN  a backend token, printed by: greenroom token --org <UUID>
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
    """An error response of Greenroom. `code` is stable."""

    def __init__(self, problem):
        super().__init__(f"{problem['code']}: {problem['detail']} (request {problem['request_id']})")
        self.code = problem["code"]
        self.errors = problem.get("errors", [])


def call(method, path, body=None, key=None):
    """Sends a request to Greenroom, retries errors that are `retryable`, and returns the JSON response.

    Pass a key with every start: an attempt that failed may have started the session, and with the same key
    the retry returns that session instead of starting another one.
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
            raise SystemExit(f"failed to reach Greenroom at {URL}: {unreachable}") from None


def problem_of(failure):
    """Reads the error from a response, which may come from another server, such as a proxy."""
    if failure.headers.get_content_type() != "application/problem+json":
        raise SystemExit(f"{URL} responded {failure.code}, but the response is not from Greenroom")
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
