"""A fake of somebody's L4 appliance, in a thread: it balances TCP for real between the members that are
enabled, counts their connections, and has a small REST API with a token. It is a fake, and says so.

    with Appliance(lab.port("page"), lab.port("lb-api"), {"was1-s1": ("127.0.0.1", 8081)}) as lb:
        lb.states(); lb.calls; lb.behave(...)
"""
import asyncio
import json
import threading


class Appliance:
    def __init__(self, front, api, members, token=None):
        self.front, self.api, self.token = front, api, token
        self.members = {n: {"to": to, "state": "disabled", "open": 0, "lag": 0} for n, to in members.items()}
        self.turn = 0
        self.calls = []        # (method, path, status)
        self.wrong_tokens = 0
        self.lag = 0           # a change is told of after so many questions, though it is in force at once
        self.answer = None     # bytes instead of a good answer; or a function of (method, member) → bytes or None
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self):
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join(20)

    def enabled(self):
        return sorted(n for n, m in self.members.items() if m["state"] == "enabled")

    def told(self):
        return [c for c in list(self.calls) if c[0] != "GET"]

    def api_down(self):
        """Nobody listens at the API; what is balanced goes on."""
        asyncio.run_coroutine_threadsafe(self._close_api(), self.loop).result(10)

    def api_up(self):
        asyncio.run_coroutine_threadsafe(self._open_api(), self.loop).result(10)

    # ---- inside the thread ----

    async def _pipe(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            try:
                writer.write_eof()
            except (OSError, RuntimeError):
                pass

    async def _balance(self, reader, writer):
        names = [n for n, m in self.members.items() if m["state"] == "enabled"]
        if not names:
            writer.close()
            return
        self.turn += 1
        m = self.members[names[self.turn % len(names)]]
        m["open"] += 1
        try:
            there, back = await asyncio.open_connection(*m["to"])
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
            back.close()
        except OSError:
            pass
        finally:
            m["open"] -= 1
            writer.close()

    def _good(self, method, name, body):
        m = self.members.get(name)
        if not m:
            return 404, {"error": "no such member"}
        if method == "PUT":
            m["state"] = json.loads(body)["state"]
            m["lag"] = self.lag
            m["before"] = "disabled" if m["state"] == "enabled" else "enabled"
            return 200, {}
        told = m["state"]
        if m["lag"] > 0:
            m["lag"] -= 1
            told = m["before"]
        return 200, {"note": "a fake appliance", "data": {"state": told, "connections": m["open"]}}

    async def _call(self, reader, writer):
        try:
            while line := (await reader.readline()).decode("latin-1").split():
                method, path = line[0], line[1]
                fields = {}
                while (line := (await reader.readline()).decode("latin-1").strip()):
                    key, _, value = line.partition(":")
                    fields[key.lower()] = value.strip()
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                name = path.rsplit("/", 1)[-1]
                if self.token and fields.get("authorization") != f"Bearer {self.token}":
                    self.wrong_tokens += 1
                    status, out = 401, json.dumps({"error": "you said " + fields.get("authorization", "nothing")})
                else:
                    answer = self.answer(method, name) if callable(self.answer) else self.answer
                    status, out = self._good(method, name, body) if answer is None else (200, answer)
                out = out if isinstance(out, bytes) else (out if isinstance(out, str) else json.dumps(out)).encode()
                self.calls.append((method, path, status))
                writer.write(f"HTTP/1.1 {status} fake\r\nContent-Type: application/json\r\n"
                             f"Content-Length: {len(out)}\r\n\r\n".encode() + out)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async def _client(self, reader, writer):
        self.clients.add(writer)
        try:
            await self._call(reader, writer)
        finally:
            self.clients.discard(writer)

    async def _open_api(self):
        self.clients = set()
        self.api_server = await asyncio.start_server(self._client, "0.0.0.0", self.api)

    async def _close_api(self):
        self.api_server.close()
        for writer in list(self.clients):
            writer.close()
        await self.api_server.wait_closed()

    async def _run(self):
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._balance, "0.0.0.0", self.front, backlog=1024)
        await self._open_api()
        self.ready.set()
        await self.ended.wait()
        server.close()
        await self._close_api()
