import jakarta.servlet.ServletContextEvent;
import jakarta.servlet.ServletContextListener;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.InputStream;
import java.util.Properties;

/** The web application of wars.py, which says what its settings mean. */
public class Shop extends HttpServlet implements ServletContextListener {
	private static final Properties settings = new Properties();
	private static final long begun = System.nanoTime();

	static {
		try (InputStream in = Shop.class.getResourceAsStream("/settings.properties")) {
			settings.load(in);
		} catch (IOException e) {
			throw new IllegalStateException(e);
		}
	}

	private static double number(String name) {
		return Double.parseDouble(settings.getProperty(name, "0"));
	}

	private static boolean is(String name) {
		return Boolean.parseBoolean(settings.getProperty(name, "false"));
	}

	private static void pause(double seconds) {
		try {
			Thread.sleep((long) (seconds * 1000));
		} catch (InterruptedException e) {
			Thread.currentThread().interrupt();
		}
	}

	@Override
	public void contextInitialized(ServletContextEvent event) {
		System.out.println("shop: begins as " + settings.getProperty("version"));
		if (is("ignore_term"))
			Runtime.getRuntime().addShutdownHook(new Thread(() -> pause(3600)));
		pause(number("start_delay"));
		if (is("start_fails"))
			throw new IllegalStateException("shop: cannot work");
		if (number("die_after") > 0) {
			Thread t = new Thread(() -> {
				pause(number("die_after"));
				Runtime.getRuntime().halt(3);
			});
			t.setDaemon(true);
			t.start();
		}
	}

	@Override
	public void contextDestroyed(ServletContextEvent event) {
		System.out.println("shop: is told to end");
		if (is("hang_in_stop"))
			for (;;)
				pause(3600);
		pause(number("stop_delay"));
		System.out.println("shop: ends");
	}

	private static String page(HttpServletRequest request, HttpServletResponse response) {
		String path = request.getPathInfo() == null ? "/" : request.getPathInfo();
		switch (path) {
		case "/":
		case "/version":
			return settings.getProperty("version");
		case "/profile":
			return String.valueOf(System.getenv("BATON_SLOT"));
		case "/health":
		case "/actuator/health":
			double age = (System.nanoTime() - begun) / 1e9, sick = number("health_fails_after");
			boolean up = !is("unhealthy") && (sick == 0 || age < sick);
			response.setStatus(up ? 200 : 503);
			response.setContentType("application/json");
			return "{\"status\": \"" + (up ? "UP" : "DOWN") + "\"}";
		case "/slow":
			pause(Double.parseDouble(request.getParameter("s")));
			return settings.getProperty("version");
		case "/property":
			return String.valueOf(System.getProperty(request.getParameter("name")));
		case "/env":
			return String.valueOf(System.getenv(request.getParameter("name")));
		case "/heap":
			return String.valueOf(Runtime.getRuntime().maxMemory());
		case "/context":
			return request.getContextPath() + " " + request.getServletContext().getRealPath("/");
		default:
			response.setStatus(404);
			return "no such page";
		}
	}

	@Override
	protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
		response.setContentType("text/plain");
		String text = page(request, response);
		if (is("answer_500") && !request.getPathInfo().endsWith("health"))
			response.setStatus(500);
		byte[] body = text.getBytes("UTF-8");
		response.setContentLength(body.length);
		response.getOutputStream().write(body);
	}
}
