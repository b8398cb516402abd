// Every service: what serves, where traffic goes, and how the last deployments went.
import {get, Stream} from "./api.js";
import {eachFrame, h, morph} from "./dom.js";
import {badge, empty, runMarks} from "./parts.js";
import {lastRuns, stateOf} from "./run_model.js";
import {t} from "./text.js";
import {traffic} from "./traffic.js";

const PAGE = 30, EVERY_MS = 5000;

function few(names) {
  return names.slice(0, 4).join(", ") + (names.length > 4 ? ` +${names.length - 4}` : "") || "–";
}

export function services({root, title, app}) {
  let list = null, total = 0, many = false, runs = new Map(), running = new Map(), filter = "", shown = PAGE, error = "";
  title(t("menu.services"));

  function row(s) {
    const run = running.get(s.name);
    const hosts = [...new Set((s.slots || []).map((x) => x.host))];
    return h("article", {class: "card service", "data-key": `s-${s.name}`, "aria-labelledby": `name-${s.name}`},
      h("div", {class: "service-head"},
        h("h2", {id: `name-${s.name}`}, h("a", {href: `#/services/${encodeURIComponent(s.name)}`}, s.name)),
        h("p", {class: "version"}, s.release ? s.release.version : t("service.nothing")),
        run ? h("a", {class: "now", href: `#/runs/${run.id}`}, badge(stateOf(run)), ` ${t("service.deploying", {version: run.version || ""})}`)
          : null,
        (s.locked || s.frozen) && h("p", {}, h("span", {class: "badge warn"}, h("span", {class: "sign", "aria-hidden": "true"}, "⊘"),
          t(s.locked ? "lock.badge" : "freeze.badge"))),
        h("dl", {class: "facts"},
          h("dt", {}, t("service.slot")), h("dd", {}, few((s.slots || []).filter((x) => x.in).map((x) =>
            hosts.length > 1 ? `${x.host}/${x.slot}` : x.slot))),
          h("dt", {}, t("service.hosts")), h("dd", {}, few(hosts.length ? hosts : s.hosts || [])),
          h("dt", {}, t("service.strategy")), h("dd", {}, s.strategy || "–")),
        h("div", {class: "last"}, h("span", {class: "label"}, t("service.last")), runMarks(runs.get(s.name) || []))),
      h("div", {class: "picture"}, s.trouble ? h("p", {class: "trouble"}, s.trouble) : traffic(s)));
  }

  const draw = eachFrame(() => {
    if (!list) {
      morph(root, [h("h1", {}, t("menu.services")), h("p", {class: error ? "error" : "muted"}, error || t("loading"))]);
      return;
    }
    morph(root, [
      h("div", {class: "title"}, h("h1", {}, t("menu.services")),
        many && h("label", {class: "find"}, h("span", {}, t("find")), h("input", {type: "search", id: "find",
          oninput: (e) => {
            filter = e.target.value.trim();
            shown = PAGE;
            load();
          }}))),
      list.length ? h("div", {class: "services"}, list.map(row))
        : filter ? h("p", {class: "muted"}, t("services.nofit", {word: filter}))
        : empty(t("services.empty"), app.may("deployer") ? ["baton init", "baton deploy --version 1"] : []),
      total > list.length && h("button", {onclick: () => {
        shown += 100;
        load();
      }}, t("more.services", {n: total - list.length})),
    ]);
  });

  let asking = false, again = false;
  async function load() {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    try {
      const [a, b] = await Promise.all([get(`/v1/services?limit=${shown}${filter ? `&find=${encodeURIComponent(filter)}` : ""}`), get("/v1/deployments?limit=200")]);
      list = a.services;
      total = a.total;
      many ||= total > 5;
      runs = lastRuns(b.deployments, 8);
      running = new Map(b.deployments.filter((d) => !d.end).map((d) => [d.service, d]));
      error = "";
    } catch (e) {
      error = e.message;
    }
    asking = false;
    draw();
    if (again) {
      again = false;
      later(50);
    }
  }

  let timer = 0;
  function later(ms) {
    clearTimeout(timer);
    timer = setTimeout(load, ms);
  }
  const stream = new Stream("/v1/events", "now", {open: load, record: () => later(150)});
  const every = setInterval(() => document.hidden || load(), EVERY_MS);
  draw();
  return () => {
    clearInterval(every);
    clearTimeout(timer);
    stream.close();
  };
}
