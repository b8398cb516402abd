// Where traffic goes, drawn: clients, the balancer, the slots. The table beside it says the same in words.
import {h} from "./dom.js";
import {t} from "./text.js";

const ROW = 44, MAX = 24;

function box(x, y, w, kind, lines, title) {
  return h("g", {class: `box ${kind}`},
    title && h("title", {}, title),
    h("rect", {x, y, width: w, height: ROW - 10, rx: 5}),
    lines.map((words, i) => h("text", {x: x + 10, y: y + (lines.length > 1 ? 14 + i * 14 : 21), class: i ? "second" : ""}, words)));
}

function cut(text, n) {
  return text.length > n ? `${text.slice(0, n - 1)}…` : text;
}

// The same picture for a wide place and for a phone, where its letters would become too small to read; the
// style sheet shows one of them.
const WIDE = {kind: "traffic for-wide", width: 460, from: 62, nginx: 100, nginxWidth: 104, slot: 270, slotWidth: 186, letters: 16};
const PHONE = {kind: "traffic for-phone", width: 320, from: 0, nginx: 14, nginxWidth: 92, slot: 152, slotWidth: 166, letters: 13};

/** Two <svg>s for a service of GET /v1/services; null where nothing is known of it. */
export function traffic(service) {
  return (service.slots || []).length ? [picture(service, WIDE), picture(service, PHONE)] : null;
}

function picture(service, x) {
  const slots = service.slots || [], balancers = (service.balancers || []).slice(0, MAX);
  // what carries traffic first; a picture of thousands helps nobody
  const shown = slots.length <= MAX ? slots : [...slots].sort((a, b) => b.in - a.in).slice(0, MAX);
  const out = x.nginx + x.nginxWidth;
  const rows = Math.max(shown.length, balancers.length), height = rows * ROW + (shown.length < slots.length ? 20 : 0);
  const middle = (rows * ROW) / 2;
  const at = (i, n) => middle + (i - (n - 1) / 2) * ROW;
  const several = new Set(slots.map((s) => s.host)).size > 1;
  const on = slots.filter((s) => s.in).length;
  const words = balancers.length ? t("traffic.words", {balancer: balancers.map((b) => `${b.family}/${b.host}`).join(", "), n: on,
    all: slots.length}) : t("traffic.none");
  const lines = balancers.flatMap((b, k) => shown.map((s, i) => ({on: s.in_at.includes(b.host),
    from: at(k, balancers.length), to: at(i, shown.length)}))).sort((a, b) => a.on - b.on);
  const curve = (a, y, b, z) => `M ${a} ${y} C ${a + (b - a) / 2} ${y}, ${b - (b - a) / 2} ${z}, ${b} ${z}`;
  return h("svg", {class: x.kind, viewBox: `0 0 ${x.width} ${height}`, role: "img", "aria-label": words},
    balancers.map((_b, k) => h("path", {class: "flow on", d: curve(x.from, middle, x.nginx, at(k, balancers.length))})),
    lines.map((l) => h("path", {class: l.on ? "flow on" : "flow", d: curve(out, l.from, x.slot, l.to)})),
    balancers.length > 0 && x === WIDE && h("text", {x: 2, y: middle + 4, class: "clients"}, t("traffic.clients")),
    balancers.map((b, k) => box(x.nginx, at(k, balancers.length) - ROW / 2 + 5, x.nginxWidth, b.running ? "balancer" : "balancer off",
      [b.family, cut(b.host, x.letters)], b.trouble || words)),
    shown.map((s, i) => box(x.slot, at(i, shown.length) - ROW / 2 + 5, x.slotWidth,
      s.in ? "in" : s.state === "absent" && !s.stranger ? "empty" : "out", [
        `${s.in ? "● " : "○ "}${cut(several ? `${s.host}/${s.slot}` : s.slot, x.letters)} :${s.port}`,
        s.version ? cut(`${s.version} · ${t(`slot.${s.healthy === false ? "unhealthy" : s.state}`)}`, x.letters + 12) : s.stranger ? cut(s.stranger, x.letters + 12) : t(`slot.${s.state}`),
      ], `${s.host}/${s.slot}: ${s.in ? t("slot.in") : t("slot.out")}`)),
    shown.length < slots.length && h("text", {x: x.slot, y: height - 6}, t("more.slots", {n: slots.length - shown.length})));
}
