"""A web server that keeps what it is sent: web.py FOLDER PORT SECRET [tls].

Each request is a line of JSON in FOLDER/taken, with whether its signature is right. FOLDER/mode says how it
answers: a status, or `hold`, which answers once the mode is another one."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import ssl
import sys
import threading
import time

folder, port, secret = sys.argv[1], int(sys.argv[2]), sys.argv[3]
key = base64.b64decode(secret.removeprefix("whsec_"))
writing = threading.Lock()


def mode():
    with open(os.path.join(folder, "mode")) as file:
        return file.read().strip()


class Keeps(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name, at = self.headers.get("webhook-id", ""), self.headers.get("webhook-timestamp", "")
        signed = hmac.new(key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
        right = "v1," + base64.b64encode(signed).decode() == self.headers.get("webhook-signature")
        fresh = at.isdigit() and abs(time.time() - int(at)) < 300
        how = mode()
        with writing, open(os.path.join(folder, "taken"), "a") as file:
            told = {"id": name, "right": right and fresh, "mode": how, "body": json.loads(body)}
            file.write(json.dumps(told) + "\n")
        while how == "hold":
            time.sleep(0.02)
            how = "200" if mode() != "hold" else how
        try:
            self.send_response(int(how))
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            pass

    def log_message(self, *_):
        pass


class Serves(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


server = Serves(("127.0.0.1", port), Keeps)
if "tls" in sys.argv[4:]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.path.join(folder, "server.pem"), os.path.join(folder, "server.key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
