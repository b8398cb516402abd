/* Names of contexts, and the texts of a base that baton makes. Pure. */
#include "base/str.h"
#include "driver/tomcat.h"

#include <string.h>

/* Tomcat's ContextName: '/' as '#', nothing as ROOT, the version after "##". */
char *bt_tomcat_name(const char *context)
{
	const char *path = context + (context[0] == '/');
	size_t n = strcspn(path, "#");
	BT_STR struct bt_str out = {0};
	if (n == 0)
		bt_str_add(&out, "ROOT");
	for (size_t i = 0; i < n; i++)
		bt_str_addc(&out, path[i] == '/' ? '#' : path[i]);
	bt_str_add(&out, path + n);
	return bt_str_steal(&out);
}

static void put_attribute(struct bt_str *out, const char *name, const char *value)
{
	bt_str_addf(out, " %s=\"", name);
	for (; *value; value++)
		switch (*value) {
		case '&':
			bt_str_add(out, "&amp;");
			break;
		case '<':
			bt_str_add(out, "&lt;");
			break;
		case '"':
			bt_str_add(out, "&quot;");
			break;
		case '\n':
		case '\t':
			bt_str_addc(out, ' ');
			break;
		default:
			bt_str_addc(out, *value);
		}
	bt_str_addc(out, '"');
}

/* What stops an instance is its shim, and applications come with its start only: so no automatic
 * deployment, which would take a file in mid-copy for a new one. */
void bt_tomcat_render(const struct bt_tomcat_server *s, struct bt_str *out)
{
	bt_str_add(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
			"<!-- Made by baton at each start: changes here are lost. -->\n");
	if (s->shutdown_port) {
		bt_str_addf(out, "<Server port=\"%u\"", s->shutdown_port);
		put_attribute(out, "shutdown", s->shutdown);
		bt_str_add(out, ">\n");
	} else {
		bt_str_add(out, "<Server port=\"-1\">\n");
	}
	bt_str_add(out,
		"  <Listener className=\"org.apache.catalina.startup.VersionLoggerListener\" "
		"logArgs=\"false\" />\n"
		"  <Listener "
		"className=\"org.apache.catalina.core.JreMemoryLeakPreventionListener\" "
		"/>\n"
		"  <Listener "
		"className=\"org.apache.catalina.core.ThreadLocalLeakPreventionListener\" />\n"
		"  <Service name=\"Catalina\">\n");
	bt_str_addf(out, "    <Connector port=\"%u\" protocol=\"HTTP/1.1\"", s->port);
	for (size_t i = 0; i < s->n_connector; i++)
		put_attribute(out, s->connector[i].key, s->connector[i].value);
	bt_str_add(out, " />\n"
			"    <Engine name=\"Catalina\" defaultHost=\"localhost\">\n"
			"      <Host name=\"localhost\" appBase=\"webapps\" unpackWARs=\"true\" "
			"autoDeploy=\"false\" deployOnStartup=\"true\">\n");
	if (s->access_log)
		bt_str_add(out,
			"        <Valve className=\"org.apache.catalina.valves.AccessLogValve\" "
			"directory=\"logs\" prefix=\"access\" suffix=\".log\" maxDays=\"30\" "
			"pattern=\"%h %l %u %t &quot;%r&quot; %s %b %D\" />\n");
	bt_str_add(out, "      </Host>\n"
			"    </Engine>\n"
			"  </Service>\n"
			"</Server>\n");
}

/* Whatever Tomcat and its applications log goes to the slot's log, which is rotated. */
const char bt_tomcat_logging[] =
	"# Made by baton at each start: changes here are lost.\n"
	"handlers = java.util.logging.ConsoleHandler\n"
	".handlers = java.util.logging.ConsoleHandler\n"
	"java.util.logging.ConsoleHandler.level = FINE\n"
	"java.util.logging.ConsoleHandler.formatter = org.apache.juli.OneLineFormatter\n"
	"java.util.logging.ConsoleHandler.encoding = UTF-8\n";
