"""Logs in at Doorward, uses the notes application, refreshes and logs out.

    export DOORWARD_URL=http://127.0.0.1:8080 DOORWARD_EMAIL=ann@example.org DOORWARD_PASSWORD=…
    export APP_URL=http://127.0.0.1:8000        # where app.py runs
    .venv/bin/python walk.py

Prints a line for each step and stops at the first that is not answered as it should be.
"""

import os
import sys
from typing import Any

import httpx


def setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"walk.py: {name} is not set")
    return value


def call(
    server: httpx.Client,
    method: str,
    path: str,
    expected: int,
    *,
    token: str | None = None,
    json: dict[str, str] | None = None,
) -> Any:
    """Sends a request; gives the JSON of an answer with the expected status and exits on any other."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = server.request(method, path, headers=headers, json=json)
    body = answer.json() if answer.content else {}
    if answer.status_code != expected:
        code = body.get("code", "") if isinstance(body, dict) else ""
        sys.exit(f"walk.py: {method} {path}: expected {expected}, got {answer.status_code} {code}")
    return body


def walk(doorward: httpx.Client, app: httpx.Client) -> None:
    login = {"email": setting("DOORWARD_EMAIL"), "password": setting("DOORWARD_PASSWORD"), "device_name": "walk.py"}
    first = call(doorward, "POST", "/v1/auth/login", 200, json=login)
    token: str = first["access_token"]
    print("logged in")

    me = call(doorward, "GET", "/v1/auth/me", 200, token=token)
    print("am", me["email"])

    call(app, "POST", "/notes", 201, token=token, json={"text": "buy milk"})
    notes = call(app, "GET", "/notes", 200, token=token)
    if notes[-1:] != ["buy milk"]:
        sys.exit(f"walk.py: the note is not the last of {notes}")
    print("wrote a note and read it again")

    expected = 200 if "admin" in me["roles"] else 403
    call(app, "GET", "/admin/notes", expected, token=token)
    print("asked for everybody's notes:", expected)

    second = call(doorward, "POST", "/v1/auth/refresh", 200, json={"refresh_token": first["refresh_token"]})
    renewed: str = second["access_token"]
    if renewed == token:
        sys.exit("walk.py: the refresh gave the old access token")
    call(doorward, "GET", "/v1/auth/me", 200, token=renewed)
    call(app, "GET", "/notes", 200, token=renewed)
    print("refreshed, and the new access token is good")

    call(doorward, "POST", "/v1/auth/logout", 204, token=renewed)
    print("logged out")

    # Neither token has expired.
    for dead in token, renewed:
        call(app, "GET", "/notes", 401, token=dead)
        refusal = call(doorward, "GET", "/v1/auth/me", 401, token=dead)
        if refusal["code"] != "logged_out":
            sys.exit(f"walk.py: expected logged_out, got {refusal['code']}")
    print("refused: 401 by the application, 401 logged_out by Doorward")


if __name__ == "__main__":
    try:
        with (
            httpx.Client(base_url=setting("DOORWARD_URL"), timeout=30) as doorward,
            httpx.Client(base_url=setting("APP_URL"), timeout=30) as app,
        ):
            walk(doorward, app)
    except httpx.RequestError as error:
        sys.exit(f"walk.py: {error.request.method} {error.request.url}: {error!r}")
