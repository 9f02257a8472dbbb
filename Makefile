# Thin front of CMake. `make packages` installs what Debian 12 lacks; the other targets call it when something is missing.
BUILD ?= build
JOBS ?= $(shell nproc)

all: build

packages:
	scripts/install-packages

build: packages
	cmake -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release $(CMAKE_ARGS)
	cmake --build $(BUILD) -j $(JOBS)

demo: build
	scripts/demo $(BUILD)

check: build
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

clean:
	rm -rf $(BUILD)

.PHONY: all packages build demo check clean
