"""Chromium for tests, with what they ask of a page again and again. Facts are polled; nothing sleeps."""
import json
import pathlib
import tempfile

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from lab import BUILD, poll

SCREENS = BUILD / "screens"

# Every visible text with the colours it is really drawn with: {text, color, ground, size, weight}
TEXTS = """
const out = [], seen = new Set(), clear = /^rgba\\(.*, 0\\)$/;
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const at = walk.currentNode.parentElement, words = walk.currentNode.data.trim();
  if (!words || !at.checkVisibility() || at.closest('.only-said, noscript') || at.closest(':disabled')) continue;
  const style = getComputedStyle(at), svg = at.closest('svg');
  let ground = null;
  if (svg) {
    const rect = at.closest('g') && at.closest('g').querySelector('rect');
    const fill = rect && getComputedStyle(rect).fill;
    if (fill && fill !== 'none') ground = fill;
  }
  for (let e = at; e && !ground; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!clear.test(c)) ground = c;
  }
  const color = svg ? style.fill : style.color, key = color + ground + style.fontSize;
  if (seen.has(key)) continue;
  seen.add(key);
  out.push({text: words.slice(0, 40), color, ground, size: parseFloat(style.fontSize), weight: +style.fontWeight});
}
return out;
"""


def luminance(color):
    channels = [float(c) / 255 for c in color[color.index("(") + 1:-1].split(",")[:3]]
    return sum(w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
               for w, c in zip((0.2126, 0.7152, 0.0722), channels))


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


class Browser:
    def __init__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="baton-chromium-", dir="/tmp")
        options = webdriver.ChromeOptions()
        for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--lang=en",
                     f"--user-data-dir={self.dir.name}", "--window-size=1280,900"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
        SCREENS.mkdir(exist_ok=True)

    def close(self):
        self.driver.quit()
        self.dir.cleanup()

    def open(self, url):
        """As by a fresh tab: a change of what stands after # alone would not load the page."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def all(self, css):
        return self.driver.find_elements("css selector", css)

    def texts(self, css):
        """What the reader sees of each; an element that was replaced meanwhile is looked up again."""
        while True:
            try:
                return [e.text for e in self.all(css)]
            except StaleElementReferenceException:
                continue

    def text(self, css="body"):
        return "\n".join(self.texts(css))

    def see(self, css, words="", seconds=60):
        """Polls until an element of css is shown that holds these words; the element."""
        def fact():
            try:
                return next((e for e in self.all(css) if e.is_displayed() and words in e.text), None)
            except StaleElementReferenceException:
                return None
        try:
            return poll(f"{css} with {words!r}", fact, seconds)
        except AssertionError as e:
            raise AssertionError(f"{e}\nthe page says:\n{self.text()}") from None

    def gone(self, css, seconds=60):
        def fact():
            try:
                return not any(e.is_displayed() for e in self.all(css))
            except StaleElementReferenceException:
                return False
        poll(f"no {css}", fact, seconds)

    def click(self, css, words=""):
        self.see(css, words).click()

    def keys(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, words, limit=60):
        """Presses Tab until what has the focus is called so; fails when it never is, or its focus is not seen."""
        for _ in range(limit):
            self.keys(Keys.TAB)
            name, ring = self.script("""
                const e = document.activeElement, style = getComputedStyle(e);
                return [e.getAttribute('aria-label') || e.innerText || '', style.outlineStyle + ' ' + style.outlineWidth]""")
            assert name == "" or (ring.startswith(("solid", "auto")) and not ring.endswith(" 0px")), (name, ring)
            if name.strip().startswith(words):
                return
        raise AssertionError(f"Tab never comes to {words!r}:\n{self.text()}")

    def script(self, code, *args):
        return self.driver.execute_script(code, *args)

    def wide(self, width=1280, height=900):
        """The size of the screen; a narrow one is a phone's."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1.5 if width < 600 else 1, "mobile": width < 600})

    def media(self, **features):
        """media(prefers_color_scheme="dark")"""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]})

    def screen(self, name):
        """The whole page as a picture in build/screens, for a person to look at."""
        height = self.script("return Math.min(document.documentElement.scrollHeight, 6000)")
        width = self.script("return innerWidth")
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {
            "format": "png", "captureBeyondViewport": True,
            "clip": {"x": 0, "y": 0, "width": width, "height": max(height, 500), "scale": 1}})
        import base64
        pathlib.Path(SCREENS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def pale(self):
        """Texts below WCAG AA's contrast."""
        out = []
        for t in self.script(TEXTS):
            large = t["size"] >= 24 or (t["size"] >= 18.66 and t["weight"] >= 700)
            ratio = contrast(t["color"], t["ground"])
            if ratio < (3 if large else 4.5):
                out.append(f"{t['text']!r}: {ratio:.2f}, {t['color']} on {t['ground']}")
        return out

    def complaints(self):
        """What the browser's console has of errors and of breaches of the policy since the last time, but
        for what being logged out and a server that is away look like."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")
                and not any(known in e["message"] for known in ("status of 401", "ERR_CONNECTION", "ERR_INCOMPLETE",
                                                                "ERR_EMPTY_RESPONSE", "ERR_ABORTED"))]

    def storage(self):
        return json.loads(self.script("return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"))
