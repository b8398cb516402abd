// The frame: who is logged in, which view is shown, whether the server answers.
import {end, get, post, watchServer} from "./api.js";
import {h, morph, say} from "./dom.js";
import {language, setLanguage, t} from "./text.js";
import {audit} from "./view_audit.js";
import {history} from "./view_history.js";
import {hosts} from "./view_hosts.js";
import {login} from "./view_login.js";
import {run} from "./view_run.js";
import {service} from "./view_service.js";
import {services} from "./view_services.js";

// path after "#/", the view, and the part of the menu it belongs to
const routes = [
  {path: /^$/, view: services, menu: "services"},
  {path: /^services\/([^/]+)$/, view: service, menu: "services"},
  {path: /^runs\/(\d+)$/, view: run, menu: "history"},
  {path: /^history$/, view: history, menu: "history"},
  {path: /^hosts$/, view: hosts, menu: "hosts"},
  {path: /^audit$/, view: audit, menu: "audit"},
];
const ranks = {viewer: 1, deployer: 2, admin: 3};

const app = {
  who: null,
  /** May this token do what needs `role`? Services outside of its scope are not shown to it at all. */
  may(role) {
    return Boolean(app.who) && ranks[app.who.role] >= ranks[role];
  },
};

const main = document.getElementById("main");
let current = null, shownAt = null, awaySince = 0, awayTimer = 0;

function menu() {
  const items = [["services", "#/"], ["history", "#/history"], ["hosts", "#/hosts"], ["audit", "#/audit"]];
  return h("nav", {"aria-label": t("menu.label")}, h("ul", {}, items
    .filter(([name]) => name !== "audit" || app.may("admin"))
    .map(([name, href]) => h("li", {}, h("a", {href, "aria-current": current?.menu === name && "page"}, t(`menu.${name}`))))));
}

function frame() {
  document.documentElement.lang = language();
  const other = language() === "ko" ? "en" : "ko";
  const skip = document.getElementById("skip");
  skip.textContent = t("skip");
  skip.onclick = (e) => {
    e.preventDefault();
    main.focus();
  };
  morph(document.getElementById("top"), [
    h("a", {class: "brand", href: "#/"}, h("img", {src: "/page/icon.svg", alt: "", width: 22, height: 22}), "baton"),
    app.who && menu(),
    h("div", {class: "right"},
      app.who && h("span", {class: "who"}, h("span", {class: "who-name"}, app.who.name), ` ${t(`role.${app.who.role}`)}`),
      h("button", {class: "quiet", id: "language", lang: other, onclick: () => {
        setLanguage(other);
        frame();
        show();
      }}, other === "ko" ? "한국어" : "English"),
      app.who && h("button", {class: "quiet", id: "logout", onclick: logOut}, t("logout"))),
  ].filter(Boolean));
  morph(document.getElementById("foot"), [h("p", {}, app.who ? `baton ${app.who.version}` : "baton")]);
}

async function logOut() {
  await end("/v1/session").catch(() => {});
  loggedOut("");
}

function loggedOut(why) {
  if (!app.who && current?.menu === "login") return;
  app.who = null;
  back();
  start({view: login, menu: "login"}, [why]);
}

function start(route, args) {
  current?.stop?.();
  current = {menu: route.menu};
  const place = h("div"); // a view that is left may still draw: into what nobody sees any more
  main.replaceChildren(place);
  frame();
  const shown = current;
  const title = (words) => {
    if (current === shown) document.title = words ? `${words} · baton` : "baton";
  };
  title("");
  shown.stop = route.view({root: place, app, title, args, enter});
}

function show() {
  const path = decodeURIComponent(location.hash.replace(/^#\/?/, "").split("?")[0]);
  const route = routes.find((r) => r.path.test(path));
  const moved = shownAt !== null && shownAt !== path;
  shownAt = path;
  if (!app.who) {
    start({view: login, menu: "login"}, [""]);
    return;
  }
  if (route) {
    start(route, path.match(route.path).slice(1));
  } else {
    start({view: ({root, title}) => {
      title(t("lost.title"));
      morph(root, [h("h1", {}, t("lost.title")), h("p", {}, h("a", {href: "#/"}, t("lost.home")))]);
    }}, []);
  }
  if (moved) {
    scrollTo(0, 0);
    main.focus({preventScroll: true}); // a reader by keyboard goes on at what is new
  }
}

function enter(who) {
  app.who = who;
  show();
}

// ---- does the server answer?

function away() {
  if (!awaySince) {
    awaySince = Date.now();
    awayTimer = setInterval(probe, 1000);
  }
  tell();
}

// Whoever was the last to fail, it is asked until it answers: an answer of any call ends it.
let probing = false;
async function probe() {
  tell();
  if (probing) return;
  probing = true;
  await get("/v1/session").catch((e) => e.status === 401 && loggedOut(t("login.ended")));
  probing = false;
}

function tell() {
  const box = document.getElementById("away");
  box.hidden = false;
  // told once; the seconds are for the eye
  morph(box, [h("span", {}, t("away")), h("span", {"aria-hidden": "true"},
    ` (${t("time.s", {n: Math.max(0, Math.round((Date.now() - awaySince) / 1000))})})`)]);
}

function back() {
  if (!awaySince) return;
  awaySince = 0;
  clearInterval(awayTimer);
  document.getElementById("away").hidden = true;
  say(t("back"));
  document.dispatchEvent(new Event("baton-back"));
}

// ---- begin

/** The link's secret leaves the address before anything else is done with it. */
async function useLink() {
  const link = location.hash.match(/^#login=(btl_[\w-]+)$/)?.[1];
  if (!link) return null;
  window.history.replaceState(null, "", "/#/");
  return post("/v1/session", {link});
}

async function begin() {
  let why = "";
  watchServer({away, back, loggedOut: () => loggedOut(t("login.ended"))});
  frame();
  try {
    app.who = await useLink();
  } catch (e) {
    why = e.message;
  }
  while (!app.who) {
    try {
      app.who = await get("/v1/session");
    } catch (e) {
      if (e.status) break;
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
  window.addEventListener("hashchange", async () => {
    if (location.hash.startsWith("#login=")) {
      location.reload();
      return;
    }
    show();
  });
  if (app.who) show();
  else start({view: login, menu: "login"}, [why]);
}

begin();
