// Elements, made and brought up to date. Text only ever enters the page as text: there is no way
// here to turn a string into markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "rect", "circle", "line", "text", "title", "tspan"]);

/** h("button", {class: "x", onclick: fn}, "text", [more]); null, false and undefined are left out. */
export function h(tag, props, ...children) {
  const el = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") {
      el[name] = value;
      (el.handlers ||= {})[name] = value;
    } else {
      el.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(el, children);
  return el;
}

function append(el, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(el, child);
    else el.append(child instanceof Node ? child : String(child));
  }
}

function sameKind(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

// What the reader changed by hand stays: whether <details> are open.
const OWN = new Set(["open"]);

function morphNode(from, to) {
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  for (const a of [...from.attributes])
    if (!to.hasAttribute(a.name) && !OWN.has(a.name)) from.removeAttribute(a.name);
  for (const a of to.attributes)
    if (from.getAttribute(a.name) !== a.value && !(OWN.has(a.name) && from.nodeName === "DETAILS"))
      from.setAttribute(a.name, a.value);
  for (const name of Object.keys({...from.handlers, ...to.handlers})) from[name] = to.handlers?.[name] || null;
  from.handlers = to.handlers;
  morph(from, [...to.childNodes]);
}

/** Makes the children of `parent` look like `next`, keeping the elements that stay: focus, scrolling
 *  and selection survive. Elements with data-key are found again wherever they moved to. */
export function morph(parent, next) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let at = parent.firstChild;
  for (const node of next.flat(3)) {
    if (!node) continue;
    const key = keyOf(node);
    let match = key ? keyed.get(key) : at;
    if (match && !sameKind(match, node)) match = null;
    if (!match) {
      parent.insertBefore(node, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else parent.insertBefore(match, at);
    if (match !== node) morphNode(match, node);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

/** fn at most once a frame, however often it is asked for; what takes long is done the less often, so
 *  that the reader always has most of the browser's time. */
export function eachFrame(fn) {
  let asked = false, notBefore = 0;
  function run() {
    asked = false;
    const begun = performance.now();
    fn();
    const took = performance.now() - begun;
    notBefore = took > 8 ? begun + took * 8 : 0;
  }
  return () => {
    if (asked) return;
    asked = true;
    const wait = notBefore - performance.now();
    if (wait > 0) setTimeout(run, wait);
    else requestAnimationFrame(run);
  };
}

/** Tells a screen reader, once it is quiet. */
export function say(text) {
  document.getElementById("said").textContent = text;
}
