#!/usr/bin/python3
"""Holds the page's rules: web.py SOURCE_ROOT

1. text enters the page as text: no innerHTML and its like, no eval, no inline style or handler;
2. scripts import each other only, and talk to this server only;
3. both string tables have the same keys with the same {places}, and every key that is named exists.
web.py --self-test: a planted fault of each sort is found.
"""
import pathlib
import re
import sys
import tempfile

FORBIDDEN = re.compile(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|eval|"
                       r"Function\(|setHTML\w*|srcdoc|DOMParser)\b|\.style\b|[\"'`]style[\"'`]|\son\w+=\"|<style")
OUTSIDE = re.compile(r"(https?:)?//[\w.-]+\.\w{2,}")
NAMED = re.compile(r"""\b(?:t|known)\(["']([\w.-]+)["']""")
BUILT = re.compile(r"\b(?:t|known)\(`([\w.-]+)\$\{")


def table(path):
    return dict(re.findall(r'^  "([^"]+)": "((?:[^"\\]|\\.)*)",$', path.read_text(), re.M))


def check(root):
    web, problems = root / "web", []
    en, ko = table(web / "text_en.js"), table(web / "text_ko.js")
    for path in sorted(web.glob("*")):
        if path.name == "meson.build":
            continue
        text = path.read_text()
        for number, line in enumerate(text.splitlines(), 1):
            where = f"web/{path.name}:{number}"
            if path.suffix in (".js", ".html") and (bad := FORBIDDEN.search(line)):
                problems.append(f"{where}: {bad[0].strip()!r} may not be used: text enters as text")
            if path.suffix != ".svg" and "www.w3.org" not in line and OUTSIDE.search(line):
                problems.append(f"{where}: an address outside of this server")
            if (of := re.search(r'from "([^"]+)"', line)) and not (web / of[1]).exists():
                problems.append(f"{where}: imports {of[1]}, which is not there")
        problems += [f"web/{path.name}: text_en.js has no {key!r}" for key in NAMED.findall(text) if key not in en]
        problems += [f"web/{path.name}: text_en.js has nothing that begins with {key!r}" for key in BUILT.findall(text)
                     if not any(k.startswith(key) for k in en)]
        if path.suffix != ".build" and f"'{path.name}'" not in (web / "meson.build").read_text():
            problems.append(f"web/{path.name}: web/meson.build does not name it")
    problems += [f"text_ko.js lacks {key!r}" for key in en.keys() - ko.keys()]
    problems += [f"text_en.js lacks {key!r}" for key in ko.keys() - en.keys()]
    for key in en.keys() & ko.keys():
        if set(re.findall(r"\{\w+\}", en[key])) != set(re.findall(r"\{\w+\}", ko[key])):
            problems.append(f"{key!r}: the places of the two languages differ")
    return problems


def self_test(root):
    plants = [("app.js", "document.body.innerHTML = x;"), ("app.js", "e.style.color = x;"), ("app.js", "t('no.such.key')"),
              ("app.js", 'import {x} from "./none.js";'), ("index.html", '<p onclick="x()">'),
              ("api.js", 'fetch("https://cdn.example.com/x")'), ("text_ko.js", '  "extra": "x",'),
              ("text_en.js", '  "hosts.low": "low {x}",'), ("extra.js", "")]
    for name, line in plants:
        with tempfile.TemporaryDirectory() as place:
            web = pathlib.Path(place) / "web"
            web.mkdir()
            for path in (root / "web").glob("*"):
                (web / path.name).write_bytes(path.read_bytes())
            with (web / name).open("a", encoding="utf-8") as f:
                f.write(line + "\n")
            if not check(pathlib.Path(place)):
                return [f"not found in {name}: {line}"]
    return []


def main():
    root = pathlib.Path(sys.argv[-1]).resolve()
    problems = self_test(root) if "--self-test" in sys.argv else check(root)
    print("\n".join(problems) or "the page holds its rules")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
