#!/usr/bin/env python3
"""README.md and README.ko.md say the same: the same headings in number and depth, the same code but for
its comments, as many rows in the tables, as many points in the lists, links to the same places."""
import pathlib
import re
import sys


def shape(text):
    blocks = re.findall(r"^```.*?^```", text, re.S | re.M)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    code = [[re.sub(r"(^|\s+)#\s.*$", "", line).rstrip() for line in b.splitlines()] for b in blocks]
    return {
        "headings": [len(h) for h in re.findall(r"^(#+) ", prose, re.M)],
        "code blocks": code,
        "table rows": [r.count("|") for r in re.findall(r"^\|.*\|$", prose, re.M)],
        "points of lists": len(re.findall(r"^- ", prose, re.M)),
        "links": sorted(link for link in re.findall(r"\]\(([^)]+)\)", prose) if not link.startswith("README")),
        "exit codes": sorted(set(re.findall(r"(?:exit code|종료 코드) (\d)", prose))),
    }


def main(root):
    english, korean = (shape((root / name).read_text()) for name in ("README.md", "README.ko.md"))
    bad = [f"README.ko.md: {what} are not those of README.md:\n  {korean[what]}\n  {english[what]}"
           for what in english if english[what] != korean[what]]
    print("\n".join(bad) if bad else "the two READMEs have one shape")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
