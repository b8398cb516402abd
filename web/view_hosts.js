// Hosts: is the agent there, what version, how much room, what runs.
import {get} from "./api.js";
import {eachFrame, h, morph} from "./dom.js";
import {ago, bytes, when} from "./format.js";
import {empty} from "./parts.js";
import {known, t} from "./text.js";

const EVERY_MS = 3000, PAGE = 100, LOW = 1 << 30;

export function hosts({root, title, app}) {
  let list = null, error = "", shown = PAGE;
  title(t("menu.hosts"));

  function running(host) {
    const all = (host.instances || []).filter((i) => i.state !== "absent");
    if (!all.length) return h("span", {class: "muted"}, t("hosts.nothing"));
    return h("ul", {class: "plain"}, all.slice(0, 12).map((i) => h("li", {},
      h("a", {href: `#/services/${encodeURIComponent(i.service)}`}, i.service), `/${i.slot} `,
      h("strong", {}, i.version || "–"), ` ${known(`slot.${i.state}`, i.state)} :${i.port}`,
      i.restarts ? ` · ${t("hosts.restarts", {n: i.restarts})}` : "")),
    all.length > 12 && h("li", {class: "muted"}, t("more.instances", {n: all.length - 12})));
  }

  const draw = eachFrame(() => {
    if (!list) {
      morph(root, [h("h1", {}, t("menu.hosts")), h("p", {class: error ? "error" : "muted"}, error || t("loading"))]);
      return;
    }
    morph(root, [
      h("div", {class: "title"}, h("h1", {}, t("menu.hosts"))),
      list.length ? h("table", {class: "rows"},
        h("thead", {}, h("tr", {}, ["name", "agent", "version", "seen", "disk", "runs"].map((k) => h("th", {scope: "col"}, t(`hosts.${k}`))))),
        h("tbody", {}, list.slice(0, shown).map((x) => h("tr", {"data-key": x.name},
          h("td", {"data-label": t("hosts.name")}, h("strong", {}, x.name), h("span", {class: "muted second"}, x.address || "")),
          h("td", {"data-label": t("hosts.agent")}, h("span", {class: `badge ${x.connected ? "good" : "bad"}`},
            h("span", {class: "sign", "aria-hidden": "true"}, x.connected ? "●" : "✗"), t(x.connected ? "hosts.connected" : "hosts.away"))),
          h("td", {"data-label": t("hosts.version")}, x.agent_version || "–",
            x.agent_version && x.agent_version !== app.who?.version && h("span", {class: "muted second"}, t("hosts.other"))),
          h("td", {"data-label": t("hosts.seen"), title: when(x.last_seen_at)}, ago(x.last_seen_at) || "–"),
          h("td", {"data-label": t("hosts.disk"), class: "nowrap"}, x.free_bytes > 0 ? bytes(x.free_bytes) : "–",
            x.free_bytes > 0 && x.free_bytes < LOW && h("span", {class: "badge bad second"},
              h("span", {class: "sign", "aria-hidden": "true"}, "!"), t("hosts.low"))),
          h("td", {"data-label": t("hosts.runs")}, running(x))))))
        : empty(t("hosts.empty"), ["baton join-token HOST", "baton agent join https://SERVER:7071"]),
      list.length > shown && h("button", {onclick: () => {
        shown += 400;
        draw();
      }}, t("more.hosts", {n: list.length - shown})),
    ]);
  });

  async function load() {
    try {
      list = (await get("/v1/hosts")).hosts.sort((a, b) => a.connected - b.connected || a.name.localeCompare(b.name));
      error = "";
    } catch (e) {
      if (e.status) error = e.message;
    }
    draw();
  }

  const every = setInterval(() => document.hidden || load(), EVERY_MS);
  draw();
  load();
  return () => clearInterval(every);
}
