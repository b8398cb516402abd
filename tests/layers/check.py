#!/usr/bin/python3
"""Holds the layers of docs/architecture.md against the sources and the objects.

check.py SOURCE_ROOT [BUILD_ROOT]
1. every #include "x/y.h" under src/ is of the own layer or of one that the layer's row names;
2. the pure layers include none of base's I/O headers and none of libc's;
3. the objects of the pure layers refer to no function of I/O, clock or randomness (nm -u).
check.py --self-test: a planted fault of each sort is found.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

PURE = ("model", "config", "plan", "engine", "dispatch")
IMPURE_BASE = {"base/fs.h", "base/loop.h", "base/clock.h", "base/log.h"}
# signal.h is fine: numbers and names of signals are data; sending one shows among the symbols.
IMPURE_HEADERS = re.compile(
    r"^(time|sys/time|sys/stat|sys/socket|sys/random|sys/file|sys/mman|fcntl|unistd|poll|dirent|netdb|"
    r"pthread|spawn|sys/wait|threads|sys/epoll|sys/timerfd|arpa/inet|netinet/\w+)\.h$|"
    r"^(event2|curl|openssl)/|^(sqlite3|archive|zstd)\.h$")
IMPURE_SYMBOLS = re.compile(
    r"^(open|openat|creat|read|pread|write|pwrite|close|fopen|fdopen|fread|fwrite|fputs|fputc|puts|"
    r"printf|vprintf|fprintf|vfprintf|putchar|perror|getline|scanf|fscanf|rename|unlink|remove|mkdir|"
    r"stat|lstat|fstat|access|opendir|readdir|socket|connect|bind|listen|accept|send\w*|recv\w*|"
    r"getaddrinfo|poll|ppoll|select|epoll_\w+|fork|vfork|exec\w+|posix_spawn\w*|system|popen|kill|"
    r"signal|sigaction|sleep|usleep|nanosleep|clock_nanosleep|time|clock|clock_gettime|gettimeofday|"
    r"localtime\w*|gmtime\w*|rand|rand_r|srand|random|srandom|drand48|\w*rand48|getrandom|getentropy|"
    r"arc4random\w*|getpid|getenv|secure_getenv|pthread_\w+|thrd_\w+|json_load_file|json_dump_file|"
    r"json_dumpf|json_loadf|json_load_callback|yaml_parser_set_input_file|event_\w+|evbuffer_\w+|"
    r"curl_\w+|sqlite3_\w+|RAND_\w+|bt_fs_\w+|bt_clock_\w+|bt_log\w*|bt_child_start|bt_child_cancel|"
    r"bt_work_\w+|bt_timer_\w+|bt_token_new|bt_http_\w+)$")


def layers_of(root):
    """{layer: set of layers it may include}, from the table in docs/architecture.md."""
    text = (root / "docs/architecture.md").read_text()
    section = text.split("\n## Layers\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\w+) \| ([\w ]*) ?\| .*\|$", section, re.M)
    return {name: set(may.split()) for name, may in rows if name != "layer"}


def check_sources(root, layers):
    problems = []
    folders = {p.name for p in (root / "src").iterdir() if p.is_dir()}
    problems += [f"src/{f}: a folder without a row in docs/architecture.md" for f in folders - set(layers)]
    for path in sorted((root / "src").rglob("*.[ch]")):
        name = path.relative_to(root)
        layer = name.parts[1]
        for number, line in enumerate(path.read_text().splitlines(), 1):
            own = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            system = re.match(r"\s*#\s*include\s+<([^>]+)>", line)
            where = f"{name}:{number}"
            if own:
                target = own[1].split("/")[0]
                if "/" not in own[1]:
                    problems.append(f'{where}: write the include as "layer/{own[1]}"')
                elif target != layer and target not in layers.get(layer, ()):
                    problems.append(f"{where}: {layer} may not include {own[1]}")
                elif layer in PURE and own[1] in IMPURE_BASE:
                    problems.append(f"{where}: {layer} is pure and may not include {own[1]}")
            elif system and layer in PURE and IMPURE_HEADERS.search(system[1]):
                problems.append(f"{where}: {layer} is pure and may not include <{system[1]}>")
    return problems


def undefined(objects):
    run = subprocess.run(["nm", "-u", "-A", *map(str, objects)], stdout=subprocess.PIPE, text=True)
    for line in run.stdout.splitlines():
        place, symbol = line.rsplit(" U ", 1) if " U " in line else (line, "")
        yield pathlib.Path(place.split(":")[0]).name, symbol.split("@")[0].strip()


def check_objects(build):
    problems, seen = [], 0
    for layer in PURE:
        objects = list((build / "src" / layer).rglob("*.c.o"))
        seen += len(objects)
        if objects:
            problems += [f"src/{layer}: {obj} calls {symbol}: {layer} is pure"
                         for obj, symbol in undefined(objects) if IMPURE_SYMBOLS.match(symbol)]
    return problems, seen


def self_test(layers):
    with tempfile.TemporaryDirectory() as tmp:
        root = pathlib.Path(tmp)
        for name in layers:
            (root / "src" / name).mkdir(parents=True)
        (root / "src/engine/a.c").write_text(
            '#include "server/x.h"\n#include "base/fs.h"\n#include <time.h>\n#include "b.h"\n'
            '#include "model/plan.h"\n#include <string.h>\nlong time(long *);\nlong f(void);\n'
            'long f(void)\n{\n\treturn time(0);\n}\n')
        found = check_sources(root, layers)
        assert len(found) == 4, found
        obj = root / "src/engine/a.c.o"
        subprocess.run(["cc", "-x", "c", "-c", "-o", obj, "-"], check=True, text=True,
                       input="long time(long *);\nlong f(void);\nlong f(void)\n{\n\treturn time(0);\n}\n")
        assert check_objects(root)[0] == ["src/engine: a.c.o calls time: engine is pure"]


def main():
    root = pathlib.Path(sys.argv[1])
    layers = layers_of(root)
    assert len(layers) > 5, "docs/architecture.md: the table of layers was not found"
    self_test(layers)
    problems = check_sources(root, layers)
    seen = 0
    if len(sys.argv) > 2:
        more, seen = check_objects(pathlib.Path(sys.argv[2]))
        problems += more
    print("\n".join(problems))
    print(f"layers: {len(layers)} layers, {seen} objects of pure layers, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
