"""WARs to deploy on a real Tomcat: one small servlet (war/Shop.java), and for each version its settings.
The class is compiled once for a build directory; a WAR is then a matter of milliseconds.

    war = wars.build(lab.dir, "v1")                   # shop-v1.war
    tree = wars.exploded(lab.dir, "v1")               # the same as a directory
    archive = wars.packed(lab.dir, "v1")              # … and as a .tar.gz of it

Pages below the context: /version / /profile (its slot) /health /actuator/health /slow?s= /property?name=
/env?name= /heap /context.

version        what /version says                stop_delay     seconds its end takes
start_delay    seconds its start takes           hang_in_stop   Tomcat's own stop never ends; TERM ends it
start_fails    the context does not start        ignore_term    the JVM does not end on TERM
unhealthy      health stays 503
answer_500     every page but health is 500      health_fails_after  seconds until health turns 503
die_after      seconds until the JVM exits with code 3
"""
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import tarfile
import zipfile

from lab import BUILD, HERE

HOME = pathlib.Path("/usr/share/tomcat10")
EXAMPLES = pathlib.Path("/usr/share/tomcat10-examples/examples")
SERVLET_API = "/usr/share/java/tomcat10-servlet-api.jar"
# What makes a Tomcat start in a second rather than in four; for run.tomcat.
FAST = {"xmx": "64m", "jars_to_skip": "*.jar", "java_opts": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}

WEB_XML = """<?xml version="1.0" encoding="UTF-8"?>
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true">
  <listener><listener-class>Shop</listener-class></listener>
  <servlet><servlet-name>shop</servlet-name><servlet-class>Shop</servlet-class></servlet>
  <servlet-mapping><servlet-name>shop</servlet-name><url-pattern>/*</url-pattern></servlet-mapping>
</web-app>
"""


def classes():
    """The directory of the compiled servlet: made by the first who asks, whoever else runs beside."""
    source = HERE / "war/Shop.java"
    where = BUILD / "tests/wars" / hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    if where.exists():
        return where
    where.parent.mkdir(parents=True, exist_ok=True)
    with open(where.parent / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not where.exists():
            made = where.with_suffix(f".{os.getpid()}")
            subprocess.run(["javac", "-nowarn", "-cp", SERVLET_API, "-d", made, source], check=True)
            made.rename(where)
    return where


def files(version, settings):
    """name: bytes, of the whole application."""
    lines = {"version": version, **settings}
    text = "".join(f"{k}={str(v).lower() if isinstance(v, bool) else v}\n" for k, v in lines.items())
    out = {"WEB-INF/web.xml": WEB_XML.encode(), "WEB-INF/classes/settings.properties": text.encode()}
    for path in classes().glob("*.class"):
        out[f"WEB-INF/classes/{path.name}"] = path.read_bytes()
    return out


def build(where, version, name="shop", **settings):
    """WHERE/NAME-VERSION.war."""
    path = pathlib.Path(where) / f"{name}-{version}.war"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as war:
        for file, data in files(version, settings).items():
            war.writestr(file, data)
    return path


def exploded(where, version, name="shop", **settings):
    """WHERE/NAME-VERSION/, a directory as a WAR unpacks to."""
    path = pathlib.Path(where) / f"{name}-{version}"
    for file, data in files(version, settings).items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(data)
    return path


def packed(where, version, name="shop", **settings):
    """WHERE/NAME-VERSION.tar.gz of that directory's content."""
    tree = exploded(where, version, name, **settings)
    return tar(tree, tree.with_name(tree.name + ".tar.gz"))


def tar(tree, path):
    with tarfile.open(path, "w:gz") as out:
        for child in sorted(tree.iterdir()):
            out.add(child, child.name)
    return path


def examples(where):
    """The WAR of Tomcat's own examples."""
    path = pathlib.Path(where) / "examples.war"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as war:
        for file in sorted(EXAMPLES.rglob("*")):
            if file.is_file():
                war.write(file, file.relative_to(EXAMPLES))
    return path


def distribution(where):
    """A Tomcat as one unpacks it: bin, conf and lib in one directory, nothing of Debian's links."""
    path = pathlib.Path(where) / "apache-tomcat"
    shutil.copytree(HOME / "bin", path / "bin")
    shutil.copytree(HOME / "lib", path / "lib")
    shutil.copytree(HOME / "etc", path / "conf")
    return path


def base(where, port, shutdown=-1, word="SHUTDOWN", home=HOME):
    """A CATALINA_BASE as people make one by hand, that starts quickly."""
    path = pathlib.Path(where)
    conf = home / "etc" if (home / "etc").exists() else home / "conf"
    shutil.copytree(conf, path / "conf")
    for name in ("logs", "temp", "webapps", "work"):
        (path / name).mkdir()
    with open(path / "conf/catalina.properties", "a", encoding="utf-8") as out:
        out.write("\ntomcat.util.scan.StandardJarScanFilter.jarsToSkip=*.jar\n")
    (path / "conf/server.xml").write_text(f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- made by hand: <Connector port="1"/> is only a comment -->
<Server port="{shutdown}" shutdown="{word}">
  <Service name="Catalina">
    <Connector port="{port}" protocol="HTTP/1.1" address="127.0.0.1" connectionTimeout="20000" />
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps" unpackWARs="true" autoDeploy="false" />
    </Engine>
  </Service>
</Server>
""")
    return path


def config(lab, name="shop", slots=("a",), strategy="recreate", managed=True, shutdown=True, tomcat=None, **groups):
    """A service on Tomcat, behind an nginx that baton runs (managed) or behind nothing. Each slot has its
    own shutdown port, and a base in the laboratory's directory."""
    lab.config(name, slots=slots, nginx=False)
    it = lab.services[name]
    del it["run"]["command"]
    it["run"].update({"as": "tomcat", "stop": {"signal": "TERM", "grace": "20s"},
                      "tomcat": {"base": str(lab.dir / "{service}-{slot}"), **FAST, **(tomcat or {})}})
    if shutdown:
        it["run"]["slots"] = {s: {"port": lab.port(f"{name}-{s}"), "shutdown": lab.port(f"{name}-{s}-shutdown")}
                              for s in slots}
    it["health"] = {"http": "/health", "expect": {"json": {"status": "UP"}}, "every": "50ms", "within": "60s"}
    it["deploy"] = {"strategy": strategy, "drain": "10s", "bake": "100ms"}
    if managed:
        listen = f"127.0.0.1:{lab.port('page')}"
        lab.page = f"http://{listen}"
        it["traffic"] = {"nginx": {"on": it["hosts"][0], "listen": listen}}
    for key, value in groups.items():
        if isinstance(value, dict) and isinstance(it.get(key), dict):
            it[key].update(value)
        else:
            it[key] = value
    lab.write()
    return it


def deploy(lab, war, version, *args, service="shop"):
    return lab.baton("deploy", service, "--artifact", war, "--version", version, *args)
