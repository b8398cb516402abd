// A question before anything is done: what will happen, in words. The browser's own <dialog> keeps
// the focus inside and closes on Escape.
import {h} from "./dom.js";
import {t} from "./text.js";

/** ask({title, words: [...], yes, danger, choices, why, act}) → what act returned; null when the reader says no.
 *  choices: what to choose from; why: asks for a reason too ("needed": and wants one). act({choice, why}): done before the dialog
 *  closes; an error it throws is shown and the dialog stays. */
export function ask({title, words, yes, danger, choices, why, act}) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    const error = h("p", {class: "error", role: "alert", hidden: true});
    const choice = choices && h("select", {id: "choice", name: "choice"},
      choices.map((c) => h("option", {value: c.value, selected: c.selected}, c.label)));
    const reason = why && h("input", {id: "why", name: "why", maxlength: 160, autocomplete: "off", required: why === "needed"});
    const ok = h("button", {type: "submit", class: danger ? "danger" : "primary"}, yes);
    const form = h("form", {method: "dialog"},
      h("h2", {id: "asked"}, title),
      words.map((w) => h("p", {}, w)),
      choice && h("p", {}, h("label", {for: "choice"}, t("ask.release")), choice),
      reason && h("p", {}, h("label", {for: "why"}, t(why === "needed" ? "ask.why-needed" : "ask.why")), reason),
      error,
      h("div", {class: "buttons"}, h("button", {type: "button", onclick: () => dialog.close()}, t("ask.no")), ok));
    const dialog = h("dialog", {"aria-labelledby": "asked"}, form);
    let answer = null;
    form.onsubmit = async (e) => {
      e.preventDefault();
      ok.disabled = true;
      error.hidden = true;
      try {
        answer = await act({choice: choice?.value, why: reason?.value.trim() || undefined});
        dialog.close();
      } catch (why) {
        error.textContent = why.message || t("error.away");
        error.hidden = false;
        ok.disabled = false;
      }
    };
    dialog.onclose = () => {
      dialog.remove();
      if (before?.isConnected) before.focus();
      resolve(answer);
    };
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("button").focus();
  });
}
