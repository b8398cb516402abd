#!/usr/bin/python3
"""embed.py DATA TABLE FILE…: the page's files, gzip'd one after another into DATA, and a C source TABLE that takes
DATA in by .incbin and says where each file lies. The same files give the same bytes: no time enters them."""
import gzip
import hashlib
import pathlib
import sys

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def main():
    data_path, table_path = (pathlib.Path(a).resolve() for a in sys.argv[1:3])
    data, rows = b"", []
    for path in sorted((pathlib.Path(a) for a in sys.argv[3:]), key=lambda p: p.name):
        packed = gzip.compress(path.read_bytes(), 9, mtime=0)
        etag = hashlib.sha256(packed).hexdigest()[:24]
        rows.append(f'\t{{"{path.name}", "{TYPES[path.suffix]}", "\\"{etag}\\"", {len(data)}, {len(packed)}}},\n')
        data += packed
    data_path.write_bytes(data)
    table_path.write_text(f"""/* Made by tools/embed.py; {hashlib.sha256(data).hexdigest()} */
#include "server/page.h"

__asm__(".section .rodata\\n"
\t".global bt_page_data\\n"
\t"bt_page_data:\\n"
\t".incbin \\"{data_path}\\"\\n"
\t".previous\\n");

const struct bt_page_file bt_page_files[] = {{
{"".join(rows)}}};
const size_t bt_page_files_n = sizeof bt_page_files / sizeof bt_page_files[0];
""")


if __name__ == "__main__":
    main()
