"""Load that runs inside a network of its own: python3 netload.py http://ADDRESS:PORT [options].

new       a connection for each request, --rate of them a second
kept      --keepers clients, each on one connection at a time: a request every --pause seconds, until it has
          sent --requests of them or is --life seconds old; then it closes and opens the next. An answer
          with `Connection: close` ends it earlier. Whatever else ends it is a failure: nothing is repeated.
held      --holders clients that keep their one connection until they are told to finish

Each answer and each failure is a line of JSON on stdout, and the counts are the last one. Lines on stdin:
`finish` ends held connections for good and kept ones early; `stop`, or the end of stdin, ends all. It ends
by itself after --seconds.
"""
import argparse
import asyncio
import json
import sys
import time
import urllib.parse

IN_FLIGHT = 500  # new connections at a time, whatever the other side does


class Refused(Exception):
    pass


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("url")
    p.add_argument("--path", default="/where")
    p.add_argument("--rate", type=float, default=40)
    p.add_argument("--keepers", type=int, default=4)
    p.add_argument("--holders", type=int, default=0)
    p.add_argument("--requests", type=int, default=10)
    p.add_argument("--life", type=float, default=1.0)
    p.add_argument("--pause", type=float, default=0.1)
    p.add_argument("--timeout", type=float, default=10.0, help="of one connect, and of one answer")
    p.add_argument("--seconds", type=float, default=300.0)
    p.add_argument("--host", help="the Host header")
    p.add_argument("--mark", help="changes nothing: by it a process is told from others")
    return p.parse_args()


class Load:
    def __init__(self, args):
        self.args = args
        parts = urllib.parse.urlsplit(args.url)
        self.address, self.port = parts.hostname, parts.port or 80
        self.host = args.host or parts.netloc
        self.counts = {k: {"answered": 0, "failed": 0} for k in ("new", "kept", "held")}
        self.connections = 0

    # ---- what is told ----

    def say(self, item):
        sys.stdout.write(json.dumps(item) + "\n")
        sys.stdout.flush()

    def answered(self, kind, connection, begun, body):
        self.counts[kind]["answered"] += 1
        self.say({"kind": kind, "connection": connection, "begun": begun, "at": time.monotonic(), "body": body})

    def failed(self, kind, connection, why):
        self.counts[kind]["failed"] += 1
        self.say({"kind": kind, "connection": connection, "at": time.monotonic(), "why": why})

    # ---- one connection ----

    async def connect(self):
        self.connections += 1
        number = self.connections
        try:
            streams = await asyncio.wait_for(asyncio.open_connection(self.address, self.port), self.args.timeout)
        except asyncio.TimeoutError:
            raise Refused("connect: no answer in time") from None
        except OSError as e:
            raise Refused(f"connect: {e!r}") from None
        return number, streams

    async def exchange(self, streams, keep):
        reader, writer = streams
        writer.write((f"GET {self.args.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: "
                      f"{'keep-alive' if keep else 'close'}\r\n\r\n").encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
        fields = {k: v.strip() for k, v in fields.items()}
        body = await self.body(reader, fields)
        status = int(head.split()[1])
        if status != 200:
            raise Refused(f"status {status}")
        return body, keep and fields.get("connection") != "close"

    async def body(self, reader, fields):
        if "content-length" in fields:
            data = await reader.readexactly(int(fields["content-length"]))
        elif fields.get("transfer-encoding") == "chunked":
            data = b""
            while n := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                data += (await reader.readexactly(n + 2))[:-2]
            await reader.readuntil(b"\r\n")
        else:
            raise Refused("an answer without a length")
        return data.decode(errors="replace")[:200].strip()

    async def request(self, kind, number, streams, keep):
        """Whether the connection may be used again; None after a failure."""
        begun = time.monotonic()
        try:
            body, stays = await asyncio.wait_for(self.exchange(streams, keep), self.args.timeout)
        except asyncio.TimeoutError:
            self.failed(kind, number, "no whole answer in time")
        except asyncio.IncompleteReadError as e:
            self.failed(kind, number, f"closed after {len(e.partial)} bytes of an answer")
        except (OSError, ValueError, IndexError, asyncio.LimitOverrunError, Refused) as e:
            self.failed(kind, number, str(e) if isinstance(e, Refused) else repr(e))
        else:
            self.answered(kind, number, begun, body)
            return stays
        return None

    # ---- the clients ----

    async def once(self):
        try:
            number, streams = await self.connect()
        except Refused as e:
            self.failed("new", self.connections, str(e))
            return
        await self.request("new", number, streams, False)
        streams[1].close()

    async def new(self):
        flying = set()
        while not self.stopped.is_set():
            if len(flying) < IN_FLIGHT:
                flying.add(task := asyncio.ensure_future(self.once()))
                task.add_done_callback(flying.discard)
            await self.pause(self.stopped, 1 / self.args.rate)
        await asyncio.gather(*flying)

    async def pause(self, event, seconds):
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def keep(self, kind, requests, life):
        """One connection, from its first request to its end."""
        told = self.told  # also while it connects
        try:
            number, streams = await self.connect()
        except Refused as e:
            self.failed(kind, self.connections, str(e))
            return
        since, sent = time.monotonic(), 0
        while True:
            sent += 1
            stays = await self.request(kind, number, streams, True)
            if not stays or told.is_set() or sent >= requests or time.monotonic() - since >= life:
                break
            await self.pause(told, self.args.pause)
            if told.is_set():
                break
        streams[1].close()

    async def kept(self):
        while not self.stopped.is_set():
            await self.keep("kept", self.args.requests, self.args.life)
            await self.pause(self.stopped, 0.01)  # also when nobody answers: a bounded rate

    async def held(self):
        while not self.finished and not self.stopped.is_set():
            await self.keep("held", 1 << 62, self.args.seconds)
            await self.pause(self.stopped, self.args.pause)

    def hear(self, word):
        if word == "finish":
            self.finished = True
            told, self.told = self.told, asyncio.Event()
            told.set()
        elif word in ("stop", ""):
            self.stopped.set()
            self.finished = True
            self.told.set()

    async def orders(self):
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while not self.stopped.is_set():
            self.hear((await reader.readline()).decode().strip())

    async def run(self):
        self.stopped, self.told, self.finished = asyncio.Event(), asyncio.Event(), False
        orders = asyncio.ensure_future(self.orders())
        asyncio.get_running_loop().call_later(self.args.seconds, self.hear, "stop")
        jobs = [self.new()] if self.args.rate > 0 else []
        jobs += [self.kept() for _ in range(self.args.keepers)] + [self.held() for _ in range(self.args.holders)]
        await asyncio.gather(*jobs)
        orders.cancel()
        self.say({"counts": self.counts, "connections": self.connections})


asyncio.run(Load(arguments()).run())
