"""A mail server for tests: takes letters over, or misbehaves as it is told.

Its one argument is a folder. `options.json` in it says how to listen, `rules.json` how to misbehave (read
again for each question, so that a test can change it). What happens is written to `events.jsonl`, a line
of JSON each. The port is printed once it listens; the server ends when its standard input does.
"""

import asyncio
import base64
import email
import email.policy
import json
import logging
import os
import random
import ssl
import sys
import threading
import time
import warnings
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult

FOLDER = Path(sys.argv[1])
OPTIONS = json.loads((FOLDER / "options.json").read_text())
CHANCE = random.Random(OPTIONS["seed"])
EVENTS = (FOLDER / "events.jsonl").open("a", encoding="utf-8")
REPLIES = {
    "refuse": "550 5.1.1 no such mailbox as that of ann@example.org",
    "policy": "553 5.7.1 <no-reply@example.org>: not the address of who is logged in",
    "later": "451 4.3.0 come back later",
}


def note(event, **fields):
    """Writes down what happened, in one piece."""
    EVENTS.write(json.dumps({"event": event, "time": time.time(), **fields}) + "\n")
    EVENTS.flush()


def rule_for(stage, recipients):
    """What the first rule that fits says is to be done now; chance has its say in each."""
    for rule in json.loads((FOLDER / "rules.json").read_text()):
        wanted = rule["recipient"]
        fits = rule["stage"] == stage and (wanted is None or wanted in recipients)
        if fits and CHANCE.random() < rule["probability"]:
            return rule["action"]
    return None


async def obey(server, stage, recipients):
    """Does what the rules say. Gives the reply to send, or none where all is well."""
    action = rule_for(stage, recipients)
    if action is None:
        return None
    note(action, stage=stage)
    if action in REPLIES:
        return REPLIES[action]
    if action == "drop":
        server.transport.abort()
    # Stalled, or gone: a lost connection cancels this.
    await asyncio.sleep(3600)


def body(message, kind):
    part = message.get_body((kind,))
    return None if part is None else part.get_content().replace("\r\n", "\n")


def record(server, session, envelope):
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    note(
        "letter",
        peer=session.peer[0],
        hello=session.host_name,
        encrypted=server.transport.get_extra_info("sslcontext") is not None,
        user=session.auth_data,
        mail_from=envelope.mail_from,
        rcpt_tos=envelope.rcpt_tos,
        sender=[address.addr_spec for address in message["From"].addresses],
        raw=base64.b64encode(envelope.content).decode(),
        headers=[[name, str(value)] for name, value in message.items()],
        text=body(message, "plain"),
        html=body(message, "html"),
    )


class Handler:
    """What a letter's stages are answered."""

    async def handle_MAIL(self, server, session, envelope, address, options):
        note("mail", mail_from=address)
        reply = await obey(server, "mail", [])
        if reply is None:
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return reply or "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        reply = await obey(server, "rcpt", [address])
        if reply is None:
            envelope.rcpt_tos.append(address)
        return reply or "250 OK"

    async def handle_DATA(self, server, session, envelope):
        action = rule_for("content", envelope.rcpt_tos)
        if action in REPLIES:
            note(action, stage="content")
            return REPLIES[action]
        # A dropped or stalled letter was taken over all the same: only its sender does not know.
        record(server, session, envelope)
        if action == "wait":
            note(action, stage="content")
            await asyncio.sleep(1)
        elif action is not None:
            note(action, stage="content")
            if action == "drop":
                server.transport.abort()
            await asyncio.sleep(3600)
        return "250 OK"

    async def handle_QUIT(self, server, session, envelope):
        note("quit")
        return await obey(server, "quit", []) or "221 Bye"


class Sink(SMTP):
    """The stages that have no hook."""

    async def _handle_client(self):
        note("connection")
        reply = await obey(self, "connect", [])
        if reply is not None:
            await self.push("554" + reply[3:] if reply.startswith("5") else "421" + reply[3:])
            self.transport.close()
            return
        await super()._handle_client()

    async def smtp_DATA(self, arg):
        reply = await obey(self, "data", self.envelope.rcpt_tos)
        if reply is None:
            await super().smtp_DATA(arg)
        else:
            await self.push(reply)


def authenticate(server, session, envelope, mechanism, given):
    user, password = OPTIONS["auth"]
    right = (given.login.decode(), given.password.decode()) == (user, password)
    note("auth", mechanism=mechanism, right=right)
    return AuthResult(success=right, handled=False, auth_data=user if right else None)


def protocol():
    auth = {}
    if OPTIONS["auth"]:
        auth = {
            "authenticator": authenticate,
            "auth_required": True,
            "auth_require_tls": OPTIONS["tls"] != "none",
            "auth_exclude_mechanism": ["PLAIN"] if OPTIONS["login_only"] else [],
        }
    starttls = OPTIONS["tls"] == "starttls"
    tls = {"tls_context": certificate(), "require_starttls": True} if starttls else {}
    if OPTIONS["tls"] == "implicit":
        # It knows of no TLS that was there before it.
        auth["auth_require_tls"] = False
    return Sink(Handler(), hostname="sink.example", **auth, **tls)


def certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "certificate.pem", FOLDER / "key.pem")
    if OPTIONS["wants_certificate"]:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(FOLDER / "ca.pem")
    return context


def end_with_the_test():
    sys.stdin.buffer.read()
    os._exit(0)


async def main():
    implicit = certificate() if OPTIONS["tls"] == "implicit" else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", OPTIONS["port"], ssl=implicit)
    print(server.sockets[0].getsockname()[1], flush=True)
    threading.Thread(target=end_with_the_test, daemon=True).start()
    await server.serve_forever()


# What clients do to it is the test's business, and what it is asked to allow as well.
logging.getLogger("mail.log").disabled = True
warnings.simplefilter("ignore")
asyncio.run(main())
