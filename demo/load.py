#!/usr/bin/python3
"""Independent load: half the requests open a connection each, half go over kept-alive connections
that retry a GET once when the connection closed before any answer came, as browsers do. Beside them
run /slow requests of a few seconds, so that some are in flight at every moment.

load.py URL --seconds N --rate R --log FILE
Every answer is a line of FILE: start and end (seconds, CLOCK_MONOTONIC), kind, status, version.
SIGTERM ends it early; open requests are finished. The last line of standard output is JSON.
"""
import argparse
import asyncio
import json
import signal
import time
import urllib.parse

FAST, SLOW = "/version", "/slow?s=3"


class Load:
    def __init__(self, args):
        url = urllib.parse.urlsplit(args.url)
        self.host, self.port, self.name = url.hostname, url.port or 80, url.netloc
        self.args = args
        self.sent = self.answered = self.failed = self.retried = 0
        self.failures = []
        self.stop = asyncio.Event()
        self.log = open(args.log, "w", buffering=1 << 16)

    async def exchange(self, reader, writer, path, keep):
        """One request on an open connection: (status, body), or None when it closed before an answer."""
        connection = "keep-alive" if keep else "close"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self.name}\r\nConnection: {connection}\r\n\r\n".encode())
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                       if line.startswith(b"content-length:")), 0)
        body = await reader.readexactly(length)
        return status, body.decode(errors="replace"), b"connection: close" not in head.lower()

    def record(self, begun, kind, status, version):
        self.answered += 1
        if status != 200:
            self.fail(kind, f"status {status}")
        self.log.write(f"{begun:.6f} {time.monotonic():.6f} {kind} {status} {version}\n")

    def fail(self, kind, why):
        self.failed += 1
        if len(self.failures) < 20:
            self.failures.append(f"{kind}: {why}")

    async def once(self, path, kind):
        begun = time.monotonic()
        self.sent += 1
        writer = None
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            status, body, _ = await asyncio.wait_for(self.exchange(reader, writer, path, False), 30)
            self.record(begun, kind, status, body)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as e:
            self.fail(kind, repr(e))
        finally:
            if writer:
                writer.close()

    async def kept(self, per_second):
        """A browser: its connection stays open; one that the server closed meanwhile is opened again."""
        reader = writer = None
        next_at = time.monotonic()
        while not self.stop.is_set():
            begun = time.monotonic()
            self.sent += 1
            for attempt in (1, 2):
                fresh = writer is None
                try:
                    if fresh:
                        reader, writer = await asyncio.open_connection(self.host, self.port)
                    status, body, stays = await asyncio.wait_for(self.exchange(reader, writer, FAST, True), 30)
                    self.record(begun, "kept", status, body)
                    if not stays:
                        writer.close()
                        writer = None
                    break
                except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as e:
                    if writer:
                        writer.close()
                    writer = None
                    nothing = isinstance(e, ConnectionError) or \
                        isinstance(e, asyncio.IncompleteReadError) and not e.partial
                    if fresh or attempt == 2 or not nothing:
                        self.fail("kept", repr(e))
                        break
                    self.retried += 1
            next_at = max(next_at + 1 / per_second, time.monotonic() - 1)
            await asyncio.sleep(max(0, next_at - time.monotonic()))
        if writer:
            writer.close()

    async def every(self, per_second, path, kind):
        tasks, next_at = set(), time.monotonic()
        while not self.stop.is_set():
            task = asyncio.ensure_future(self.once(path, kind))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            next_at = max(next_at + 1 / per_second, time.monotonic() - 1)
            await asyncio.sleep(max(0, next_at - time.monotonic()))
        await asyncio.gather(*tasks)

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.call_later(self.args.seconds, self.stop.set)
        begun = time.monotonic()
        ended = asyncio.ensure_future(self.stop.wait())
        ended.add_done_callback(lambda _: setattr(self, "took", time.monotonic() - begun))
        browsers, rate = 16, self.args.rate
        await asyncio.gather(
            *(self.kept(rate / 2 / browsers) for _ in range(browsers)),
            self.every(rate / 2, FAST, "close"),
            self.every(2, SLOW, "slow"))
        self.log.close()
        print(json.dumps({"requests": self.sent, "answered": self.answered, "failed": self.failed,
                          "retried": self.retried, "seconds": round(self.took, 1),
                          "per_second": round(self.sent / self.took), "failures": self.failures}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=600, help="fast requests a second")
    parser.add_argument("--log", required=True)
    asyncio.run(Load(parser.parse_args()).run())


if __name__ == "__main__":
    main()
