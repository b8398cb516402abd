// One service: its slots on its hosts, its releases, its runs, and what its instances write.
import {end, get, post, Stream, text} from "./api.js";
import {ask} from "./dialog.js";
import {eachFrame, h, morph} from "./dom.js";
import {bytes, when} from "./format.js";
import {badge, logBox, runTable} from "./parts.js";
import {stateOf} from "./run_model.js";
import {known, t} from "./text.js";
import {traffic} from "./traffic.js";

const EVERY_MS = 5000, SLOTS = 60;

// As its host asked last; nothing where nobody asked.
function health(slot) {
  return slot.healthy === undefined ? null : h("span", {class: `badge ${slot.healthy ? "good" : "bad"}`, title: slot.unhealthy_why},
    h("span", {class: "sign", "aria-hidden": "true"}, slot.healthy ? "✓" : "✗"), t(slot.healthy ? "slot.healthy" : "slot.unhealthy"));
}

export function service({root, title, app, args: [name]}) {
  const path = `/v1/services/${encodeURIComponent(name)}`;
  let s = null, releases = [], runs = [], error = null, log = null, logOf = null, allSlots = false;
  title(name);

  async function rollback() {
    const good = releases.filter((r) => r.id !== s.release?.id && r.state !== "bad");
    if (!good.length) return;
    const id = await ask({
      title: t("rollback.title", {service: name}),
      words: [t("rollback.words", {from: s.release.version})],
      yes: t("rollback.yes"), danger: true,
      choices: good.slice(0, 50).map((r) => ({value: String(r.id), selected: r.id === s.rollback_to?.id,
        label: `${r.version} (#${r.id}, ${known(`release.${r.state}`, r.state)}, ${when(r.created_at)})`})),
      act: async ({choice}) => (await post(`${path}/rollback`, {to: choice})).id,
    });
    if (id) location.hash = `#/runs/${id}`;
  }

  async function lock() {
    await ask({title: t("lock.title", {service: name}), words: [t("lock.words")], yes: t("lock.button"), why: "needed",
      act: async ({why}) => {
        await post(`${path}/lock`, {why});
        load();
      }});
  }

  async function unlock() {
    await ask({title: t("unlock.title", {service: name}), words: [t("unlock.words", s.locked)], yes: t("unlock.button"),
      act: async () => {
        await end(`${path}/lock`);
        load();
      }});
  }

  async function readLog(slot) {
    logOf = slot;
    log = null;
    draw();
    const q = slot ? `&host=${encodeURIComponent(slot.host)}&slot=${encodeURIComponent(slot.slot)}` : "";
    try {
      log = await text(`${path}/logs?lines=200${q}`);
    } catch (e) {
      log = e.message || t("error.away");
    }
    draw();
  }

  function slotTable() {
    const all = s.slots || [], list = allSlots ? all.slice(0, 2000) : all.slice(0, SLOTS);
    return h("section", {"data-key": "slots"}, h("h2", {}, t("service.slots")),
      h("table", {class: "rows"},
        h("thead", {}, h("tr", {}, ["host", "slot", "port", "release", "health", "rotation", "since", "log"].map((k) =>
          h("th", {scope: "col"}, t(`slots.${k}`))))),
        h("tbody", {}, list.map((x) => h("tr", {"data-key": `${x.host}/${x.slot}`, class: x.in ? "serving" : ""},
          h("td", {"data-label": t("slots.host")}, x.host),
          h("td", {"data-label": t("slots.slot")}, x.slot),
          h("td", {"data-label": t("slots.port"), class: "number"}, String(x.port)),
          h("td", {"data-label": t("slots.release")}, x.version || (x.release ? `#${x.release}` : "–")),
          h("td", {"data-label": t("slots.health")}, x.stranger ? t("slot.stranger", {who: x.stranger}) : known(`slot.${x.state}`, x.state), " ", health(x)),
          h("td", {"data-label": t("slots.rotation")}, h("span", {class: `badge ${x.in ? "good" : "idle"}`},
            h("span", {class: "sign", "aria-hidden": "true"}, x.in ? "●" : "○"), x.in ? t("slot.in") : t("slot.out")),
            x.connections > 0 && h("span", {class: "muted"}, ` ${t("slot.open", {n: x.connections})}`)),
          h("td", {"data-label": t("slots.since"), class: "nowrap"}, x.since ? when(x.since) : "–"),
          h("td", {"data-label": t("slots.log")}, h("button", {class: "quiet", "aria-label": t("log.of", {what: `${x.host}/${x.slot}`}),
            onclick: () => readLog(x)}, t("log.show"))))))),
      all.length > list.length && h("button", {onclick: () => {
        allSlots = true;
        draw();
      }}, t("more.slots", {n: all.length - list.length})),
      logOf && h("div", {class: "logs"}, h("h3", {}, t("log.of", {what: `${logOf.host}/${logOf.slot}`})),
        log === null ? h("p", {class: "muted"}, t("loading")) : logBox(log, t("log.of", {what: `${logOf.host}/${logOf.slot}`}))));
  }

  function releaseTable() {
    return h("section", {"data-key": "releases"}, h("h2", {}, t("service.releases")), h("table", {class: "rows"},
      h("thead", {}, h("tr", {}, ["version", "state", "created", "file", "digest"].map((k) => h("th", {scope: "col"}, t(`releases.${k}`))))),
      h("tbody", {}, releases.slice(0, 30).map((r) => h("tr", {"data-key": `rel-${r.id}`, class: r.live ? "serving" : ""},
        h("td", {"data-label": t("releases.version")}, r.version),
        h("td", {"data-label": t("releases.state")}, r.live ? h("span", {class: "badge good"},
          h("span", {class: "sign", "aria-hidden": "true"}, "●"), t("release.live"))
          : r.state === "new" ? t("release.new") : badge(r.state)),
        h("td", {"data-label": t("releases.created"), class: "nowrap"}, when(r.created_at)),
        h("td", {"data-label": t("releases.file")}, `${r.file_name} (${bytes(r.size)})`),
        h("td", {"data-label": t("releases.digest")}, h("code", {title: r.digest}, (r.digest || "").slice(0, 12))))))));
  }

  const draw = eachFrame(() => {
    if (error || !s) {
      morph(root, [h("h1", {}, name), h("p", {class: error ? "error" : "muted"}, error || t("loading"))]);
      return;
    }
    const run = runs.find((d) => !d.end);
    morph(root, [
      h("div", {class: "title"},
        h("div", {}, h("p", {class: "crumb"}, h("a", {href: "#/"}, t("menu.services"))), h("h1", {}, name)),
        h("div", {class: "buttons"},
          app.may("deployer") && (s.locked ? h("button", {id: "unlock", onclick: unlock}, t("unlock.button"))
            : h("button", {id: "lock", onclick: lock}, `${t("lock.button")} …`)),
          app.may("deployer") && s.release && !run && s.rollback_to &&
            h("button", {class: "danger", id: "rollback", onclick: rollback}, t("rollback.button")))),
      h("p", {class: "lead", "data-key": "lead"}, h("strong", {}, s.release ? s.release.version : t("service.nothing")), " ",
        h("span", {class: "muted"}, s.live?.why || "")),
      run && h("p", {"data-key": "now", class: "banner busy"}, badge(stateOf(run)), " ",
        h("a", {href: `#/runs/${run.id}`}, t("service.see", {id: run.id, change: run.version || ""}))),
      s.locked && h("p", {class: "banner warn", "data-key": "locked"}, t("lock.is", {...s.locked, since: when(s.locked.since)})),
      s.frozen && h("p", {class: "banner warn", "data-key": "frozen"}, t("freeze.is", {...s.frozen, until: Number.isNaN(Date.parse(s.frozen.until)) ? s.frozen.until : when(s.frozen.until)})),
      s.trouble && h("p", {class: "banner bad", "data-key": "trouble"}, s.trouble),
      (s.balancers || []).filter((b) => b.trouble).map((b) => h("p", {class: "banner bad", "data-key": `b-${b.host}`}, `${b.family}/${b.host}: ${b.trouble}`)),
      h("div", {class: "card picture wide", "data-key": "picture"}, traffic(s)),
      slotTable(),
      h("section", {"data-key": "runs"}, h("h2", {}, t("service.last")), runTable(runs, false),
        h("p", {}, h("a", {href: `#/history?service=${encodeURIComponent(name)}`}, t("service.all")))),
      releaseTable(),
    ]);
  });

  async function load() {
    try {
      const [a, b, c] = await Promise.all([get(path), get(`${path}/releases`), get(`/v1/deployments?limit=8&service=${encodeURIComponent(name)}`)]);
      s = a;
      releases = b.releases;
      runs = c.deployments;
      error = null;
    } catch (e) {
      if (e.status) error = e.message;
    }
    draw();
  }

  let timer = 0;
  const stream = new Stream("/v1/events", "now", {open: load, record: (r) => {
    if (r.service !== name) return;
    clearTimeout(timer);
    timer = setTimeout(load, 200);
  }});
  const every = setInterval(() => document.hidden || load(), EVERY_MS);
  draw();
  return () => {
    clearInterval(every);
    clearTimeout(timer);
    stream.close();
  };
}
