"""Load for tests, from a thread of its own: every answer is recorded, every failure counted.

closing      clients that open a connection for each request
browsers     clients that keep theirs, and repeat a GET once when a kept connection closed before any
             answer came, as browsers and `hey` do
"""
import asyncio
import ssl
import threading
import time
import urllib.parse


class Load:
    def __init__(self, url, path="/version", rate=100, browsers=4, host=None, slow=None):
        """rate: requests a second, half of each kind; slow: seconds of a request, one after the other."""
        parts = urllib.parse.urlsplit(url)
        self.address, self.port, self.path = parts.hostname, parts.port or 80, path
        self.tls = ssl._create_unverified_context() if parts.scheme == "https" else None
        self.host = host or parts.netloc
        self.rate, self.n_browsers, self.slow = rate, browsers, slow
        self.sent = self.failed = self.retried = 0
        self.failures = []  # (time, kind, why), the first 50
        self.seen = []      # (begun, ended, kind, status, body)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.ready = threading.Event()

    def __enter__(self):
        self.thread.start()
        self.ready.wait(10)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends the load; what is in flight is finished and counts."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.ended.set)
            self.thread.join(60)
            assert not self.thread.is_alive(), "the load does not end"
        return self

    def summary(self):
        return f"{self.sent} sent, {self.failed} failed: {self.failures[:10]}"

    def versions(self, after=0.0):
        """Bodies of answers to requests that began after a time.monotonic() value, in order of their first."""
        out = []
        for begun, _, _, _, body in sorted(list(self.seen)):
            if begun >= after and body not in out:
                out.append(body)
        return out

    def answered(self, after):
        """How many requests that began after a time.monotonic() value have had their good answer."""
        return sum(1 for begun, _, _, status, _ in list(self.seen) if begun >= after and status == 200)

    # ---- inside the thread ----

    async def _exchange(self, reader, writer, path, keep):
        writer.write((f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: "
                      f"{'keep-alive' if keep else 'close'}\r\n\r\n").encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        return int(head.split()[1]), body.decode(errors="replace"), fields.get("connection") != "close"

    def _connect(self):
        return asyncio.open_connection(self.address, self.port, ssl=self.tls)

    def _answered(self, begun, kind, status, body):
        self.seen.append((begun, time.monotonic(), kind, status, body))
        if status != 200:
            self._failed(kind, f"status {status}")

    def _failed(self, kind, why):
        self.failed += 1
        if len(self.failures) < 50:
            self.failures.append((time.monotonic(), kind, why))

    ERRORS = (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError, IndexError)

    async def _once(self, path, kind):
        begun, writer = time.monotonic(), None
        self.sent += 1
        try:
            reader, writer = await self._connect()
            status, body, _ = await asyncio.wait_for(self._exchange(reader, writer, path, False), 60)
            self._answered(begun, kind, status, body)
        except self.ERRORS as e:
            self._failed(kind, repr(e))
        finally:
            if writer:
                writer.close()

    async def _browser(self, pause):
        connection = None
        while not self.ended.is_set():
            begun = time.monotonic()
            self.sent += 1
            for repeat in (False, True):
                fresh = connection is None
                try:
                    connection = connection or await self._connect()
                    status, body, stays = await asyncio.wait_for(self._exchange(*connection, self.path, True), 60)
                    self._answered(begun, "kept", status, body)
                    if not stays:
                        connection[1].close()
                        connection = None
                    break
                except self.ERRORS as e:
                    if connection:
                        connection[1].close()
                    connection = None
                    nothing = isinstance(e, ConnectionError) or \
                        (isinstance(e, asyncio.IncompleteReadError) and not e.partial)
                    if fresh or repeat or not nothing:
                        self._failed("kept", repr(e))
                        break
                    self.retried += 1
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - begun)))
        if connection:
            connection[1].close()

    async def _closing(self, pause):
        flying = set()
        while not self.ended.is_set():
            if len(flying) < 500:  # bounded, whatever the other side does
                flying.add(task := asyncio.ensure_future(self._once(self.path, "close")))
                task.add_done_callback(flying.discard)
            await asyncio.sleep(pause)
        await asyncio.gather(*flying)

    async def _slow(self):
        while not self.ended.is_set():
            await self._once(f"/slow?s={self.slow}", "slow")

    async def _run(self):
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        self.ready.set()
        jobs = [self._closing(2 / self.rate)]
        jobs += [self._browser(2 * self.n_browsers / self.rate) for _ in range(self.n_browsers)]
        if self.slow:
            jobs.append(self._slow())
        await asyncio.gather(*jobs)
