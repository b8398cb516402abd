// Numbers and times as people read them.
import {language, t} from "./text.js";

export function duration(ms) {
  if (!(ms >= 0)) return "";
  if (ms < 60000) return t("time.s", {n: (Math.floor(ms / 100) / 10).toFixed(1)});
  const s = Math.floor(ms / 1000);
  if (s < 3600) return t("time.ms", {m: Math.floor(s / 60), s: String(s % 60).padStart(2, "0")});
  return t("time.hm", {h: Math.floor(s / 3600), m: String(Math.floor(s / 60) % 60).padStart(2, "0")});
}

export function bytes(n) {
  if (!(n >= 0)) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return `${n.toFixed(i && n < 100 ? 1 : 0)} ${units[i]}`;
}

const forms = new Map();

function form(kind, options) {
  const key = kind + language();
  if (!forms.has(key)) forms.set(key, new Intl.DateTimeFormat(language(), options));
  return forms.get(key);
}

/** The time of day for what is of today, else with the date. */
export function when(iso) {
  if (!iso) return "";
  const d = new Date(iso);
  const today = new Date().toDateString() === d.toDateString();
  const clock = {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"};
  return today ? form("clock", clock).format(d)
    : form("date", {year: "numeric", month: "short", day: "numeric", ...clock}).format(d);
}

export function clock(iso) {
  return iso ? form("clock", {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"})
    .format(new Date(iso)) : "";
}

export function ago(iso) {
  const ms = Date.now() - Date.parse(iso);
  if (!iso || Number.isNaN(ms)) return "";
  if (ms < 10000) return t("time.now");
  const steps = [[60000, 1000, "second"], [3600000, 60000, "minute"], [86400000, 3600000, "hour"], [Infinity, 86400000, "day"]];
  const [, unit, name] = steps.find(([below]) => ms < below);
  return new Intl.RelativeTimeFormat(language(), {numeric: "always"}).format(-Math.floor(ms / unit), name);
}
