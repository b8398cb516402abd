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

/** An <svg> for a service of GET /v1/services; null where nothing is known of it. */
export function traffic(service) {
  const slots = service.slots || [], balancers = (service.balancers || []).slice(0, MAX);
  if (!slots.length) return null;
  // what carries traffic first; a picture of thousands helps nobody
  const shown = slots.length <= MAX ? slots : [...slots].sort((a, b) => b.in - a.in).slice(0, MAX);
  const rows = Math.max(shown.length, balancers.length), height = rows * ROW + (shown.length < slots.length ? 20 : 0);
  const middle = (rows * ROW) / 2;
  const at = (i, n) => middle + (i - (n - 1) / 2) * ROW;
  const several = new Set(slots.map((s) => s.host)).size > 1;
  const on = slots.filter((s) => s.in).length;
  const words = balancers.length ? t("traffic.words", {balancer: balancers.map((b) => `nginx/${b.host}`).join(", "), n: on,
    all: slots.length}) : t("traffic.none");
  const lines = balancers.flatMap((b, k) => shown.map((s, i) => ({on: s.in_at.includes(b.host),
    from: at(k, balancers.length), to: at(i, shown.length)}))).sort((a, b) => a.on - b.on);
  return h("svg", {class: "traffic", viewBox: `0 0 460 ${height}`, role: "img", "aria-label": words},
    balancers.map((_b, k) => h("path", {class: "flow on", d: `M 62 ${middle} C 80 ${middle}, 82 ${at(k, balancers.length)}, 100 ${at(k, balancers.length)}`})),
    lines.map((l) => h("path", {class: l.on ? "flow on" : "flow", d: `M 204 ${l.from} C 240 ${l.from}, 236 ${l.to}, 270 ${l.to}`})),
    balancers.length > 0 && h("text", {x: 2, y: middle + 4, class: "clients"}, t("traffic.clients")),
    balancers.map((b, k) => box(100, at(k, balancers.length) - ROW / 2 + 5, 104, b.running ? "balancer" : "balancer off",
      ["nginx", cut(b.host, 15)], b.trouble || words)),
    shown.map((s, i) => box(270, at(i, shown.length) - ROW / 2 + 5, 186, s.in ? "in" : s.state === "absent" && !s.stranger ? "empty" : "out", [
      `${s.in ? "● " : "○ "}${cut(several ? `${s.host}/${s.slot}` : s.slot, 16)} :${s.port}`,
      s.version ? cut(`${s.version} · ${t(`slot.${s.state}`)}`, 30) : s.stranger ? cut(s.stranger, 30) : t(`slot.${s.state}`),
    ], `${s.host}/${s.slot}: ${s.in ? t("slot.in") : t("slot.out")}`)),
    shown.length < slots.length && h("text", {x: 270, y: height - 6}, t("more.slots", {n: slots.length - shown.length})));
}
