"""A light service for benches of baton itself: /profile, /actuator/health, /; ends cleanly on TERM."""
import http.server
import signal
import socketserver
import sys
import threading

port, slot = int(sys.argv[1]), sys.argv[2]
BODIES = {"/profile": slot, "/actuator/health": '{"status":"UP"}'}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = BODIES.get(self.path, "hello from %s\n" % slot).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 512


server = Server(("127.0.0.1", port), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
