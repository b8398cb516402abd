package demo;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.catalina.Context;
import org.apache.catalina.Wrapper;
import org.apache.catalina.startup.Tomcat;

/**
 * A small web shop as a Spring Boot application would be: an embedded Tomcat in one runnable jar.
 * /profile (which slot am I), /actuator/health, /version, /slow?s=3, and a page at /.
 * Its version stands in the jar's manifest, so v1 and v2 are the same classes.
 */
public class Shop extends HttpServlet {
    private static final long serialVersionUID = 1;
    private static final AtomicInteger active = new AtomicInteger();
    private static final AtomicLong lastEnd = new AtomicLong(System.nanoTime());
    private static volatile boolean stopping;
    private final String profile;
    private final String version;

    Shop(String profile, String version) {
        this.profile = profile;
        this.version = version;
    }

    @Override
    protected void service(HttpServletRequest rq, HttpServletResponse rs) throws IOException {
        active.incrementAndGet();
        try {
            answer(rq, rs);
        } finally {
            lastEnd.set(System.nanoTime());
            active.decrementAndGet();
        }
    }

    private void answer(HttpServletRequest rq, HttpServletResponse rs) throws IOException {
        rs.setHeader("X-Version", version);
        rs.setHeader("X-Slot", profile);
        switch (rq.getRequestURI()) {
            case "/profile" -> send(rs, 200, "text/plain", profile);
            case "/version" -> send(rs, 200, "text/plain", version);
            case "/actuator/health" -> send(rs, stopping ? 503 : 200, "application/json",
                    "{\"status\":\"" + (stopping ? "OUT_OF_SERVICE" : "UP") + "\"}");
            case "/slow" -> {
                pause(rq.getParameter("s"));
                send(rs, 200, "text/plain", version);
            }
            case "/" -> send(rs, 200, "text/html", "<!doctype html><title>shop</title>"
                    + "<h1>shop " + version + "</h1><p>served by " + profile);
            default -> send(rs, 404, "text/plain", "not found");
        }
    }

    private static void pause(String seconds) {
        try {
            Thread.sleep((long) (1000 * Math.min(30, Double.parseDouble(seconds))));
        } catch (NumberFormatException | NullPointerException | InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static void send(HttpServletResponse rs, int status, String type, String text) throws IOException {
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        rs.setStatus(status);
        rs.setContentType(type + ";charset=utf-8");
        rs.setContentLength(body.length);
        rs.getOutputStream().write(body);
    }

    /** Goes on answering until nobody has asked for a moment, and only then closes the door. */
    private static void drain(Tomcat tomcat) {
        System.out.println("stopping: " + active.get() + " requests in flight");
        long deadline = System.nanoTime() + 20_000_000_000L;
        try {
            while (System.nanoTime() < deadline
                    && (active.get() > 0 || System.nanoTime() - lastEnd.get() < 300_000_000L)) {
                Thread.sleep(20);
            }
            tomcat.stop();
        } catch (Exception e) {
            System.out.println("stop: " + e);
        }
        System.out.println("stopped");
    }

    public static void main(String[] args) throws Exception {
        long begun = System.nanoTime();
        int port = 8080;
        String profile = "default";
        for (String a : args) {
            if (a.startsWith("--server.port=")) {
                port = Integer.parseInt(a.substring(a.indexOf('=') + 1));
            } else if (a.startsWith("--spring.profiles.active=")) {
                profile = a.substring(a.indexOf('=') + 1);
            }
        }
        String version = Shop.class.getPackage().getImplementationVersion();
        File base = Files.createTempDirectory("shop").toFile();
        base.deleteOnExit();
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(base.getPath());
        tomcat.setPort(port);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        tomcat.getConnector().setProperty("acceptCount", "1000");
        tomcat.getConnector().setProperty("maxKeepAliveRequests", "-1");
        tomcat.getConnector().setThrowOnFailure(true);
        Context context = tomcat.addContext("", base.getPath());
        Wrapper servlet = Tomcat.addServlet(context, "shop", new Shop(profile, version == null ? "dev" : version));
        servlet.addMapping("/*");
        tomcat.start();
        System.out.printf("shop %s (%s) on port %d, up in %.1f s%n", version, profile, port,
                (System.nanoTime() - begun) / 1e9);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            drain(tomcat);
        }));
        tomcat.getServer().await();
    }
}
