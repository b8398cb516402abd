// The HTTP API: calls, and one stream of events that comes back by itself where it was.

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let on = {away() {}, back() {}, loggedOut() {}};

/** away(): the server does not answer; back(): it does again; loggedOut(): the session is over. */
export function watchServer(handlers) {
  on = handlers;
}

let skew = 0; // the server's clock less ours, where it matters

/** The server's time, ms. */
export function now() {
  return Date.now() + skew;
}

function learn(answer) {
  const off = Date.parse(answer.headers.get("Date")) + 500 - Date.now();
  if (Number.isFinite(off)) skew = Math.abs(off) > 2000 ? off : 0;
}

async function send(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : {"Content-Type": "application/json"},
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch {
    on.away();
    throw new ApiError(0, "unreachable", "");
  }
  learn(answer);
  if (answer.ok) {
    on.back();
    return answer;
  }
  const told = await answer.json().catch(() => null);
  const error = new ApiError(answer.status, told?.error?.code || "", told?.error?.message || answer.statusText);
  if (error.status === 401 && path !== "/v1/session") on.loggedOut();
  throw error;
}

export async function get(path) {
  return (await send("GET", path)).json();
}

export async function post(path, body = {}) {
  return (await send("POST", path, body)).json();
}

export async function end(path) {
  return (await send("DELETE", path)).json();
}

/** The last `max` characters of a text. */
export async function text(path, max = 400000) {
  const all = await (await send("GET", path)).text();
  return all.length > max ? all.slice(all.indexOf("\n", all.length - max) + 1) : all;
}

const FIRST_WAIT = 400, LONGEST_WAIT = 5000;

/** Events of `path` after `cursor` (a number, or "now"). When the line breaks it asks until the server
 *  is back, and goes on after the last event it has. handlers: record, progress, end, open. */
export class Stream {
  constructor(path, cursor, handlers) {
    Object.assign(this, {path, cursor, handlers, source: null, timer: 0, wait: FIRST_WAIT, closed: false});
    this.onVisible = () => this.visible();
    this.onHide = () => this.drop(); // a page that the browser keeps for "back" must not keep a connection
    document.addEventListener("visibilitychange", this.onVisible);
    addEventListener("pageshow", this.onVisible);
    addEventListener("pagehide", this.onHide);
    this.open();
  }

  open() {
    if (this.closed || this.source) return;
    const source = this.source = new EventSource(`${this.path}?after=${encodeURIComponent(this.cursor)}`);
    const listen = (name, fn) => source.addEventListener(name, (e) => {
      if (source !== this.source) return;
      if (e.lastEventId) this.cursor = e.lastEventId;
      fn?.(JSON.parse(e.data));
    });
    for (const name of ["begin", "record", "progress"]) listen(name, this.handlers[name]);
    listen("end", (data) => {
      this.close();
      this.handlers.end?.(data);
    });
    source.onopen = () => {
      this.wait = FIRST_WAIT;
      on.back();
      this.handlers.open?.();
    };
    source.onerror = () => {
      if (source === this.source) this.broken();
    };
  }

  broken() {
    this.source.close();
    this.source = null;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.again(), this.wait);
    this.wait = Math.min(this.wait * 1.6, LONGEST_WAIT);
  }

  // EventSource does not tell why it failed, so a plain request asks: away, logged out, or good again.
  async again() {
    if (this.closed || this.source) return;
    try {
      await get("/v1/session");
      this.open();
    } catch (e) {
      if (e.status === 401) on.loggedOut();
      else if (!this.closed) this.timer = setTimeout(() => this.again(), this.wait);
      this.wait = Math.min(this.wait * 1.6, LONGEST_WAIT);
    }
  }

  // A browser has six connections for a server: tabs that nobody looks at give theirs back.
  visible() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => this.drop(), 30000);
    } else if (!this.closed && !this.source) {
      this.open();
    }
  }

  drop() {
    clearTimeout(this.timer);
    clearTimeout(this.hiding);
    this.source?.close();
    this.source = null;
  }

  close() {
    this.closed = true;
    this.drop();
    document.removeEventListener("visibilitychange", this.onVisible);
    removeEventListener("pageshow", this.onVisible);
    removeEventListener("pagehide", this.onHide);
  }
}
