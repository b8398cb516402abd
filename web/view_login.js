// Log in: by the link that `baton page` prints, or by a token typed here once.
import {post} from "./api.js";
import {h, morph} from "./dom.js";
import {t} from "./text.js";

export function login({root, title, args: [why], enter}) {
  title(t("login.title"));
  const error = h("p", {class: "error", role: "alert", hidden: !why}, why);
  const field = h("input", {id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false",
    required: true, placeholder: "bt_…", "aria-describedby": "token-help"});
  const button = h("button", {type: "submit", class: "primary"}, t("login.button"));
  const form = h("form", {class: "login"},
    h("label", {for: "token"}, t("login.token")), field,
    h("p", {id: "token-help", class: "muted"}, t("login.once")), error, button);
  form.onsubmit = async (e) => {
    e.preventDefault();
    button.disabled = true;
    try {
      const who = await post("/v1/session", {token: field.value.trim()});
      field.value = "";
      enter(who);
    } catch (e2) {
      error.textContent = e2.status === 401 ? t("login.unknown") : e2.message || t("error.away");
      error.hidden = false;
      button.disabled = false;
      field.focus();
    }
  };
  morph(root, [
    h("div", {class: "card narrow"},
      h("h1", {}, t("login.title")),
      h("p", {}, t("login.link")), h("pre", {class: "command"}, "baton page"),
      form),
  ]);
  field.focus();
}
