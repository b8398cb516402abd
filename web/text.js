// The page's words in the reader's language. What the server says about a run stays as it says it.
import {en} from "./text_en.js";
import {ko} from "./text_ko.js";

const tables = {en, ko};
const KEY = "baton.language";

function chosen() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage may be shut off
  }
}

let now = tables[chosen()] ? chosen() : navigator.languages?.some((l) => l.startsWith("ko")) &&
  !navigator.language.startsWith("en") ? "ko" : "en";

export function language() {
  return now;
}

export function setLanguage(name) {
  now = name;
  try {
    localStorage.setItem(KEY, name);
  } catch {
    // it holds until the page is closed
  }
}

/** The words of `key`, with {name} filled in. */
export function t(key, values) {
  const words = tables[now][key] ?? tables.en[key] ?? key;
  return values ? words.replace(/\{(\w+)\}/g, (_all, name) => String(values[name] ?? "")) : words;
}

/** A stage's name: "batch 2 of 3" too. */
export function stageName(name) {
  const [, stem, i, n] = name.match(/^(.+?),? (\d+) of (\d+)$/) || [];
  return stem ? t("stage.of", {stage: known(`stage.${stem}`, stem), i, n}) : known(`stage.${name}`, name);
}

/** The words of `key`, or `otherwise` where there are none: names that a newer server may send. */
export function known(key, otherwise) {
  return tables[now][key] ?? tables.en[key] ?? otherwise;
}
