"""A mail server that keeps what it takes: mail.py FOLDER PORT [tls|starttls] [USER:PASSWORD].

Each mail is a line of JSON in FOLDER/taken, each refusal one in FOLDER/refused. While FOLDER/hold is there,
it answers to no mail."""

import asyncio
import email
import email.policy
import json
import os
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

folder, port = sys.argv[1], int(sys.argv[2])
secrecy = sys.argv[3] if len(sys.argv) > 3 else "none"
login = sys.argv[4] if len(sys.argv) > 4 else None
put_off = set()


def note(name, what):
    with open(os.path.join(folder, name), "a") as file:
        file.write(json.dumps(what) + "\n")


class Keeps:
    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        said = None
        if name == "nobody":
            said = "550 5.1.1 no such mailbox"
        elif name == "later" and address not in put_off:
            put_off.add(address)
            said = "451 4.7.1 come back later"
        if said:
            note("refused", {"to": address, "said": said})
            return said
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        note("seen", {"id": mail["Message-ID"]})
        while os.path.exists(os.path.join(folder, "hold")):
            await asyncio.sleep(0.02)
        note("taken", {
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "id": mail["Message-ID"],
            "subject": mail["Subject"], "date": mail["Date"], "automatic": mail["Auto-Submitted"],
            "body": mail.get_content(), "peer": session.peer[1], "upgraded": session.ssl is not None,
        })
        return "250 OK"


class Serves(Controller):
    def factory(self):
        more = {}
        if secrecy == "starttls":
            more.update(tls_context=context, require_starttls=True)
        if login:
            more.update(authenticator=known, auth_required=True, auth_require_tls=secrecy == "starttls")
        return SMTP(self.handler, **more)


def known(server, session, envelope, mechanism, data):
    given = data.login.decode() + ":" + data.password.decode()
    return AuthResult(success=given == login)


context = None
if secrecy != "none":
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.path.join(folder, "server.pem"), os.path.join(folder, "server.key"))
wrapped = context if secrecy == "tls" else None
controller = Serves(Keeps(), hostname="127.0.0.1", port=port, ssl_context=wrapped)
controller.start()
sys.stdin.read()
controller.stop()
