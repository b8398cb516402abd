"""A guestbook that says who it is: /profile, /version, /health, and anything else."""
import http.server
import pathlib
import signal
import sys
import threading

PORT, PROFILE = int(sys.argv[1]), sys.argv[2]
VERSION = pathlib.Path(__file__).with_name("VERSION").read_text().strip()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = {"/profile": PROFILE, "/version": VERSION, "/health": "UP"}.get(self.path, f"{PROFILE} {VERSION}")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


server = Server(("127.0.0.1", PORT), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
