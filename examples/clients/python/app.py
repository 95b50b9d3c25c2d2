"""Notes that only their owner sees: a small application whose users log in at Doorward.

    doorward key client notes        # prints the secret, and the entry for Doorward's DOORWARD__CLIENTS
    export DOORWARD_URL=http://127.0.0.1:8080 DOORWARD_CLIENT_ID=notes DOORWARD_CLIENT_SECRET=…
    .venv/bin/uvicorn app:app --port 8000

With DOORWARD_ASK=check it takes Doorward's session cookies, too, and needs no client.
"""

import os
from collections import defaultdict
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field

import doorward
from doorward import User, get_current_user, get_current_user_by_check, require_role

ways = {"introspection": get_current_user, "check": get_current_user_by_check}
current_user = ways[os.environ.get("DOORWARD_ASK", "introspection")]

CurrentUser = Annotated[User, Depends(current_user)]
Admin = Annotated[User, Depends(require_role("admin", current_user))]

app = FastAPI(title="Notes", lifespan=doorward.lifespan, exception_handlers=doorward.exception_handlers)

# By user id: addresses change hands, ids never do.
notes: defaultdict[UUID, list[str]] = defaultdict(list)


class Note(BaseModel):
    text: str = Field(min_length=1, max_length=1000)


@app.get("/notes")
async def my_notes(user: CurrentUser) -> list[str]:
    return notes[user.id]


@app.post("/notes", status_code=201)
async def add_note(note: Note, user: CurrentUser) -> Note:
    notes[user.id].append(note.text)
    return note


@app.get("/admin/notes")
async def all_notes(_: Admin) -> dict[UUID, list[str]]:
    return notes
