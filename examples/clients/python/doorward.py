"""Doorward for FastAPI: who sends this request, and what may they do?

    app = FastAPI(lifespan=doorward.lifespan, exception_handlers=doorward.exception_handlers)

    @app.get("/notes")
    async def notes(user: Annotated[User, Depends(get_current_user)]) -> list[str]: ...

Set DOORWARD_URL, and for `get_current_user` DOORWARD_CLIENT_ID and DOORWARD_CLIENT_SECRET, which
`doorward key client ID` makes. Doorward is asked at every request and no answer is kept: that is what makes a
logout count on the very next request.

- `get_current_user` introspects the access token (RFC 7662). The answer holds no reason: who is refused gets the
  code `token_inactive`.
- `get_current_user_by_check` asks `/v1/auth/check`, which knows cookies, too, needs no client secret and says why
  somebody is refused. Name this application's address in Doorward's `http.trusted_proxies`, else the method that it
  tells is not believed, and with a cookie every request counts as one that changes something.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Annotated, Any, TypedDict
from urllib.parse import quote_plus
from uuid import UUID

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer


@dataclass(frozen=True, slots=True)
class User:
    """Who sends the request, as it is in Doorward's database at this moment."""

    id: UUID
    session_id: UUID
    email: str | None
    """None unless it was shown to be the user's: whoever registers can write down any address."""
    roles: frozenset[str]


class State(TypedDict):
    """What `lifespan` puts into `request.state`."""

    doorward: httpx.AsyncClient


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    """One pool of connections to Doorward for all requests."""
    # The requests of all users go through this client, so it must never remember a cookie.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    url = os.environ["DOORWARD_URL"]
    async with httpx.AsyncClient(base_url=url, cookies=no_cookies, timeout=5) as client:
        yield {"doorward": client}


class Refused(HTTPException):
    """An error with a stable code, for clients to program against."""

    def __init__(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.code = code


async def _as_problem(_: Request, refused: Refused) -> JSONResponse:
    """The body of an error as Doorward itself writes it (RFC 9457)."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(refused.status_code).phrase,
        "status": refused.status_code,
        "detail": refused.detail,
        "code": refused.code,
    }
    return JSONResponse(body, refused.status_code, refused.headers, "application/problem+json")


exception_handlers: dict[int | type[Exception], Callable[[Request, Any], Any]] = {Refused: _as_problem}


async def _ask(request: Request, method: str, path: str, **options: Any) -> httpx.Response:
    """Asks Doorward.

    When it cannot tell, neither can we: with 503 the client tries again, with 401 it would throw a session away that
    may be alive and well.
    """
    client: httpx.AsyncClient = request.state.doorward
    retry_after = "1"
    try:
        answer = await client.request(method, path, **options)
    except httpx.RequestError:
        pass
    else:
        if not answer.is_server_error:
            return answer
        retry_after = answer.headers.get("Retry-After", retry_after)
    detail = "Nobody can tell at the moment who you are. Try again soon."
    raise Refused(503, "doorward_unavailable", detail, {"Retry-After": retry_after})


def _client_secret_basic() -> httpx.BasicAuth:
    """Both parts are form-encoded first (RFC 6749 §2.3.1)."""
    client_id, secret = os.environ["DOORWARD_CLIENT_ID"], os.environ["DOORWARD_CLIENT_SECRET"]
    return httpx.BasicAuth(quote_plus(client_id), quote_plus(secret))


_bearer = HTTPBearer(auto_error=False, description="An access token from Doorward's `POST /v1/auth/login`.")


async def get_current_user(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> User:
    """The user whose access token the request carries."""
    if credentials is None:
        challenge = {"WWW-Authenticate": "Bearer"}
        raise Refused(401, "unauthenticated", "This request needs `Authorization: Bearer`.", challenge)
    form = {"token": credentials.credentials, "token_type_hint": "access_token"}
    answer = await _ask(request, "POST", "/v1/oauth/introspect", data=form, auth=_client_secret_basic())
    # What is too long to be read is no token. A wrong client secret is our fault and not the user's: 500.
    token: dict[str, Any] = {"active": False} if answer.status_code == 413 else answer.raise_for_status().json()
    # A refresh token is active as well, but it is no key to this door.
    if not token["active"] or token["token_type"] != "Bearer":
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        raise Refused(401, "token_inactive", "The access token is worth nothing, or nothing any more.", challenge)
    return User(
        id=UUID(token["sub"]),
        session_id=UUID(token["sid"]),
        email=token["email"] if token["email_verified"] else None,
        roles=frozenset(token["roles"]),
    )


# What Doorward has to see of a request to judge it.
_JUDGED_BY = {b"authorization", b"cookie", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-websocket-key"}


async def get_current_user_by_check(request: Request) -> User:
    """The user whose access token or session cookie the request carries."""
    # As they came: a header that stands there twice is for Doorward to refuse.
    headers = [(name, value) for name, value in request.headers.raw if name in _JUDGED_BY]
    headers.append((b"x-original-method", request.method.encode()))
    answer = await _ask(request, "GET", "/v1/auth/check", headers=headers)
    if answer.status_code in (400, 401, 403):
        problem = answer.json()
        challenge = {name: answer.headers[name] for name in ["WWW-Authenticate"] if name in answer.headers}
        raise Refused(answer.status_code, problem["code"], problem["detail"], challenge)
    answer.raise_for_status()
    roles = answer.headers["X-Auth-Roles"]
    return User(
        id=UUID(answer.headers["X-Auth-User"]),
        session_id=UUID(answer.headers["X-Auth-Session"]),
        email=answer.headers["X-Auth-Email"] or None,
        roles=frozenset(roles.split(",") if roles else []),
    )


def require_role(
    role: str, current_user: Callable[..., Awaitable[User]] = get_current_user
) -> Callable[..., Awaitable[User]]:
    """A dependency that lets only users with this role in."""

    async def with_role(user: Annotated[User, Depends(current_user)]) -> User:
        if role not in user.roles:
            raise Refused(403, "role_required", f"This needs the role `{role}`.")
        return user

    return with_role
