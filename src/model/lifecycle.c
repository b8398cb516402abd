#include "model/lifecycle.h"

#include "base/str.h"

const struct bt_lifecycle_info bt_lifecycles[BT_LIFECYCLES] = {
	[BT_LIFE_BEFORE_BLOCK_TRAFFIC] = {"BeforeBlockTraffic", true, true, true, false},
	[BT_LIFE_BLOCK_TRAFFIC] = {"BlockTraffic", false, false, true, false},
	[BT_LIFE_AFTER_BLOCK_TRAFFIC] = {"AfterBlockTraffic", true, true, true, false},
	[BT_LIFE_APPLICATION_STOP] = {"ApplicationStop", true, true, false, true},
	[BT_LIFE_DOWNLOAD_BUNDLE] = {"DownloadBundle", false, false, false, false},
	[BT_LIFE_BEFORE_INSTALL] = {"BeforeInstall", true, false, false, true},
	[BT_LIFE_INSTALL] = {"Install", false, false, false, true},
	[BT_LIFE_AFTER_INSTALL] = {"AfterInstall", true, false, false, true},
	[BT_LIFE_APPLICATION_START] = {"ApplicationStart", true, false, false, true},
	[BT_LIFE_VALIDATE_SERVICE] = {"ValidateService", true, false, false, true},
	[BT_LIFE_BEFORE_ALLOW_TRAFFIC] = {"BeforeAllowTraffic", true, false, true, false},
	[BT_LIFE_ALLOW_TRAFFIC] = {"AllowTraffic", false, false, true, false},
	[BT_LIFE_AFTER_ALLOW_TRAFFIC] = {"AfterAllowTraffic", true, false, true, false},
};

enum bt_lifecycle bt_lifecycle_find(const char *name)
{
	for (int i = 0; i < BT_LIFECYCLES; i++)
		if (bt_streq(bt_lifecycles[i].name, name))
			return (enum bt_lifecycle)i;
	return BT_LIFECYCLES;
}

size_t bt_lifecycle_names(const char *ret[static BT_LIFECYCLES])
{
	size_t n = 0;
	for (int i = 0; i < BT_LIFECYCLES; i++)
		if (bt_lifecycles[i].scripts)
			ret[n++] = bt_lifecycles[i].name;
	return n;
}
