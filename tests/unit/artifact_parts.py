#!/usr/bin/python3
"""What the artifact tests need: archives of every refused kind, and a server with faults.

artifact_parts.py archives DIR    writes them
artifact_parts.py serve DIR       serves DIR at /<mode>/<file>; prints its port
"""
import http.server
import io
import os
import pathlib
import re
import sys
import tarfile
import zipfile


def member(name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def tar(path, *members, mode="w:gz", **kw):
    with tarfile.open(path, mode, **kw) as out:
        for info, data in members:
            out.addfile(info, io.BytesIO(data))


LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


def archives(d):
    good = [member("./"), member("shop/", type=tarfile.DIRTYPE), member("shop/bin/run", b"#!/bin/sh\n", mode=0o6755),
            member("shop/lib/a.jar", b"jar" * 1000, mode=0o600), member("shop/lib/now", type=LINK, linkname="../lib/a.jar"),
            member("shop/lib/b.jar", type=HARD, linkname="shop/lib/a.jar"),
            member("shop/lib/a.jar.txt", b"first"), member("shop/lib/a.jar.txt", b"second"),
            member("shop/größe.txt", b"utf-8"), member("x/" * 40 + "deep.txt", b"deep")]
    tar(d / "good.tar.gz", *good)
    tar(d / "good.tar", *good, mode="w")
    with zipfile.ZipFile(d / "good.zip", "w", zipfile.ZIP_DEFLATED) as z:
        for info, data in good:
            if info.isreg():
                entry = zipfile.ZipInfo(info.name)
                entry.external_attr = (0o100000 | info.mode) << 16
                z.writestr(entry, data)
        link = zipfile.ZipInfo("shop/lib/now")
        link.external_attr = 0o120777 << 16
        z.writestr(link, "../lib/a.jar")
    bad = {
        "absolute": [member("/etc/evil", b"x")],
        "dotdot": [member("a/../../evil", b"x")],
        "link-absolute": [member("l", type=LINK, linkname="/etc/passwd")],
        "link-up": [member("a/l", type=LINK, linkname="../../evil")],
        "link-chain": [member("a/b/top", type=LINK, linkname="../.."), member("a/b/l", type=LINK, linkname="top/..")],
        "link-through": [member("dir", type=LINK, linkname="sub"), member("sub/x", b"x"), member("dir/evil", b"x")],
        "hard-absolute": [member("h", type=HARD, linkname="/etc/passwd")],
        "hard-up": [member("h", type=HARD, linkname="../../etc/passwd")],
        "hard-to-link": [member("a/l", type=LINK, linkname="../x"), member("h", type=HARD, linkname="a/l")],
        "hard-nothing": [member("h", type=HARD, linkname="nothing")],
        "char-device": [member("n", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
        "block-device": [member("n", type=tarfile.BLKTYPE, devmajor=8, devminor=0)],
        "fifo": [member("p", type=tarfile.FIFOTYPE)],
        "long-name": [member("n" * 300, b"x")],
        "long-path": [member("directory/" * 110 + "x", b"x")],
        "deep": [member("d/" * 70 + "x", b"x")],
        "file-as-dir": [member("f", b"x"), member("f/g", b"x")],
        "dir-as-file": [member("f/g", b"x"), member("f", b"x")],
        "empty": [],
    }
    for name, members in bad.items():
        tar(d / f"bad-{name}.tar.gz", *members, format=tarfile.GNU_FORMAT)
    with zipfile.ZipFile(d / "bad-zip-dotdot.zip", "w") as z:
        z.writestr("../evil", "x")
    with zipfile.ZipFile(d / "bad-zip-link.zip", "w") as z:
        link = zipfile.ZipInfo("l")
        link.external_attr = 0o120777 << 16
        z.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(d / "bad-zip-bomb.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("zeros", bytes(160 << 20))
    (d / "bad-not-an-archive.tar.gz").write_bytes(b"hello, this is no archive\n" * 100)
    (d / "bad-cut.tar.gz").write_bytes((d / "good.tar.gz").read_bytes()[:-200])
    (d / "bad-zeros.tar").write_bytes(bytes(10240))
    info = tarfile.TarInfo("sparse")  # a sparse file that promises a terabyte
    info.size = 1 << 40
    with tarfile.open(d / "bad-lies.tar", "w") as out:
        out.fileobj.write(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    (d / "shop.jar").write_bytes(bytes(i * 7 % 251 for i in range(3 << 20)))


class Server(http.server.BaseHTTPRequestHandler):
    failed = set()
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        mode, name = re.fullmatch(r"/([a-z0-9]+)/([\w.-]+)", self.path).groups()
        data = (pathlib.Path(sys.argv[2]) / name).read_bytes()
        ranged = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(ranged[1]) if ranged and mode != "norange" else 0
        print(f"{mode} {start}", file=sys.stderr)
        once = (mode, name) not in self.failed
        self.failed.add((mode, name))
        if mode == "missing" or (mode == "busy" and once):
            self.send_response(404 if mode == "missing" else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if mode == "wrong":
            data = data[:-1] + b"!"
        if mode == "longer":
            data += b"more"
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data)
        if mode == "cut" and start < len(data) // 2:  # breaks off twice
            end = start + len(data) // 3
        self.wfile.write(data[start:end])
        if end < len(data):
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, *args):
        pass


def main():
    d = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "archives":
        archives(d)
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    print(server.server_port, flush=True)
    server.serve_forever()


main()
