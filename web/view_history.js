// Deployments, the newest first, of one service or of all.
import {get, Stream} from "./api.js";
import {eachFrame, h, morph} from "./dom.js";
import {empty, runTable} from "./parts.js";
import {t} from "./text.js";

export function history({root, title, app}) {
  let only = new URLSearchParams(location.hash.split("?")[1] || "").get("service") || "";
  let list = null, names = [], limit = 50, error = "";
  title(t("menu.history"));

  const draw = eachFrame(() => {
    morph(root, [
      h("div", {class: "title"}, h("h1", {}, t("menu.history")),
        h("label", {class: "find"}, h("span", {}, t("history.service")), h("select", {id: "service", onchange: (e) => {
          only = e.target.value;
          limit = 50;
          window.history.replaceState(null, "", only ? `#/history?service=${encodeURIComponent(only)}` : "#/history");
          load();
        }}, h("option", {value: "", selected: !only}, t("history.all")),
        names.map((n) => h("option", {value: n, selected: n === only}, n))))),
      error && h("p", {class: "error"}, error),
      !list ? h("p", {class: "muted"}, t("loading"))
        : list.length ? runTable(list, true)
          : empty(t("history.empty"), app.may("deployer") ? ["baton deploy"] : []),
      list && list.length >= limit && limit < 1000 && h("button", {onclick: () => {
        limit = Math.min(limit * 4, 1000);
        load();
      }}, t("more.runs")),
    ]);
  });

  async function load() {
    try {
      list = (await get(`/v1/deployments?limit=${limit}${only ? `&service=${encodeURIComponent(only)}` : ""}`)).deployments;
      if (!names.length) names = (await get("/v1/services")).services.map((s) => s.name);
      names = [...new Set([...names, only, ...list.map((d) => d.service)])].filter(Boolean).sort();
      error = "";
    } catch (e) {
      if (e.status) error = e.message;
    }
    draw();
  }

  let timer = 0;
  const stream = new Stream("/v1/events", "now", {open: load, record: (r) => {
    if (!["plan", "phase", "end"].includes(r.kind)) return;
    clearTimeout(timer);
    timer = setTimeout(load, 200);
  }});
  draw();
  return () => {
    clearTimeout(timer);
    stream.close();
  };
}
