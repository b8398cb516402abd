// Small things that several views show.
import {h} from "./dom.js";
import {ago, when} from "./format.js";
import {stateOf} from "./run_model.js";
import {known, t} from "./text.js";

// A shape and a word for each state, so that nothing hangs on colour alone.
const marks = {
  done: ["✓", "good"], good: ["✓", "good"], rolled_back: ["↩", "warn"], refused: ["⊘", "warn"], halted: ["■", "bad"],
  parked: ["!", "bad"], bad: ["✗", "bad"], failed: ["✗", "bad"], undo_failed: ["✗", "bad"], unknown: ["?", "bad"],
  running: ["▶", "busy"], new: ["▶", "busy"], paused: ["❚❚", "warn"], undoing: ["↩", "busy"], rolling_back: ["↩", "busy"],
  closing: ["↩", "busy"], observing: ["▶", "busy"], planning: ["▶", "busy"], undone: ["↩", "warn"], skipped: ["–", "idle"], waiting: ["", "idle"],
};

export function markOf(state) {
  return marks[state] || ["", "idle"];
}

export function badge(state) {
  const [sign, tone] = markOf(state);
  return h("span", {class: `badge ${tone}`}, h("span", {class: "sign", "aria-hidden": "true"}, sign),
    known(`state.${state}`, state));
}

/** The last deployments of a service, the newest first, each a link. */
export function runMarks(list) {
  if (!list.length) return h("span", {class: "muted"}, "–");
  return h("ol", {class: "marks"}, list.map((d) => {
    const state = stateOf(d), [sign, tone] = markOf(state);
    const words = `${d.version || ""} ${known(`state.${state}`, state)}, ${ago(d.started_at)}`;
    return h("li", {"data-key": `m-${d.id}`}, h("a", {class: `mark ${tone}`, href: `#/runs/${d.id}`, title: words, "aria-label": words},
      h("span", {"aria-hidden": "true"}, sign)));
  }));
}

export function empty(words, commands) {
  return h("div", {class: "card empty"}, h("p", {}, words), commands.map((c) => h("pre", {class: "command"}, c)));
}

/** Deployments as a table; on a phone each row is a small card. */
export function runTable(list, withService) {
  return h("table", {class: "rows"},
    h("thead", {}, h("tr", {}, h("th", {scope: "col"}, t("run.number")), withService && h("th", {scope: "col"}, t("run.service")),
      h("th", {scope: "col"}, t("run.what")), h("th", {scope: "col"}, t("run.release")), h("th", {scope: "col"}, t("run.result")), h("th", {scope: "col"}, t("run.started")),
      h("th", {scope: "col"}, t("run.by")), h("th", {scope: "col"}, t("run.reason")))),
    h("tbody", {}, list.map((d) => h("tr", {"data-key": `r-${d.id}`},
      h("td", {"data-label": t("run.number")}, h("a", {href: `#/runs/${d.id}`}, `#${d.id}`)),
      withService && h("td", {"data-label": t("run.service")}, h("a", {href: `#/services/${encodeURIComponent(d.service)}`}, d.service)),
      h("td", {"data-label": t("run.what")}, did(d)),
      h("td", {"data-label": t("run.release"), class: "nowrap"}, change(d)),
      h("td", {"data-label": t("run.result")}, badge(stateOf(d))),
      h("td", {"data-label": t("run.started"), class: "nowrap"}, h("time", {datetime: d.started_at}, when(d.started_at))),
      h("td", {"data-label": t("run.by")}, d.by?.name || ""),
      h("td", {"data-label": t("run.reason"), class: "reason"}, d.reason || "")))));
}

/** The strategy or flow of a run that went forward, or what it was for. */
export function did(d) {
  return d.purpose === "deploy" || d.purpose === "flow" ? d.strategy : known(`purpose.${d.purpose}`, d.purpose);
}

/** "v1 → v2" */
export function change(d) {
  const to = d.version || (d.release ? `#${d.release}` : "");
  return d.old_version && d.old_version !== to ? `${d.old_version} → ${to}` : to;
}

/** The last lines of a log; what is above the bound says so. */
export function logBox(text, label, max = 2000) {
  const lines = text.replace(/\n$/, "").split("\n");
  const shown = lines.slice(-max);
  return h("pre", {class: "log", tabindex: "0", role: "region", "aria-label": label},
    lines.length > max && `${t("log.left", {n: lines.length - max})}\n`, shown.join("\n") || t("log.empty"));
}
