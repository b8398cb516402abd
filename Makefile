# The two commands are `make demo` and `make test`; each installs what it needs and builds.
BUILD ?= build
PREFIX ?= /usr/local
prefix ?= $(PREFIX)

all: build-deps $(BUILD)/build.ninja
	@ninja -C $(BUILD)

# FLOW=deployAndTomcatRestartWithL4Control shows a flow over two hosts; BALANCER=nat|dsr|haproxy in front of them.
demo: demo$(if $(FLOW),-flow)-deps $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@BUILD=$(BUILD) demo/run

test: test-deps
	@BUILD=$(BUILD) tools/test.sh

# BENCH=name runs one of them, QUICK=1 a short version.
bench: bench-deps $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@BUILD=$(BUILD) bench/run $(BENCH)

# The laboratory of flows again and again: SOAK=10 times each, unless said otherwise; K=words chooses as pytest's -k.
soak: test-deps $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@BUILD=$(BUILD) tools/soak.sh $(K)

lint: test-deps $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@meson test -C $(BUILD) --no-rebuild --print-errorlogs --suite lint

format: test-deps
	@tests/layers/format.py --write

# DESTDIR and prefix as in the GNU standards: make install DESTDIR=/tmp/x prefix=/usr
install: all
	@meson configure $(BUILD) -Dprefix=$(prefix)
	@ninja -C $(BUILD) --quiet
	@meson install -C $(BUILD) --no-rebuild

# Named one by one: make looks for no pattern rule for a phony target.
build-deps demo-deps demo-flow-deps test-deps bench-deps:
	@tools/deps.sh $(@:-deps=)

$(BUILD)/build.ninja:
	@meson setup $(BUILD)

clean:
	rm -rf $(BUILD) build-clang build-asan

.PHONY: all demo test bench soak lint format install clean build-deps demo-deps demo-flow-deps test-deps bench-deps
