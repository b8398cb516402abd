// Who did what; for admins.
import {get} from "./api.js";
import {eachFrame, h, morph} from "./dom.js";
import {when} from "./format.js";
import {t} from "./text.js";

export function audit({root, title, app}) {
  let list = null, error = "", limit = 100;
  title(t("menu.audit"));

  const draw = eachFrame(() => morph(root, [
    h("div", {class: "title"}, h("h1", {}, t("menu.audit"))),
    error && h("p", {class: "banner bad", role: "alert"}, error),
    !list ? !error && h("p", {class: "muted"}, t("loading"))
      : h("table", {class: "rows"},
        h("thead", {}, h("tr", {}, ["at", "who", "from", "what", "service", "detail"].map((k) => h("th", {scope: "col"}, t(`audit.${k}`))))),
        h("tbody", {}, list.map((a) => h("tr", {"data-key": `a-${a.id}`},
          h("td", {"data-label": t("audit.at"), class: "nowrap"}, when(a.at)),
          h("td", {"data-label": t("audit.who")}, a.who || ""),
          h("td", {"data-label": t("audit.from")}, a.from || ""),
          h("td", {"data-label": t("audit.what")}, a.what),
          h("td", {"data-label": t("audit.service")}, a.service ? h("a", {href: `#/services/${encodeURIComponent(a.service)}`}, a.service) : ""),
          h("td", {"data-label": t("audit.detail"), class: "reason"}, a.detail || ""))))),
    list && list.length >= limit && limit < 10000 && h("button", {onclick: () => {
      limit = Math.min(limit * 4, 10000);
      load();
    }}, t("more.lines")),
  ]));

  async function load() {
    try {
      list = (await get(`/v1/audit?limit=${limit}`)).audit;
      error = "";
    } catch (e) {
      if (e.status) error = e.message;
    }
    draw();
  }

  if (app.may("admin")) {
    draw();
    load();
  } else {
    error = t("denied", {role: t(`role.${app.who.role}`), needed: t("role.admin")});
    draw();
  }
  const every = setInterval(() => document.hidden || error || load(), 5000);
  return () => clearInterval(every);
}
