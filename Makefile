# make demo         create the environment, install what griffin runs on, compile the kernels of
#                   this machine, and talk with the bundled model (tools/demo.py)
# make kernels      compile the kernels of every instruction set, not of this machine's alone
# make test         install the rest, then lint, types and every test that is not slow; of each
#                   sweep (many cases of one claim) an eighth, drawn by SAMPLE=SEED, which it prints
# make test-fast    the same tests without what takes seconds, and of each sweep a twelfth: under
#                   two minutes
# make test-slow    what takes minutes, and every sweep whole
# make wheel        a wheel with all kernels, in dist; make test-wheel tries it in a new environment
# make test-arm     the NEON kernels beside the portable ones, bit for bit, on an emulated ARM
#                   (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)
# make test-newest  every fast test on the newest of everything that pyproject.toml allows, torch
#                   too, in an environment of its own
# make test-oracles PEFT and TRL themselves: adapters both ways, and the losses of tuning, beside
#                   what is installed here and out of its way
# make stopwatch    seconds from a clone to first words, and from a wheel to the chat page
# make lock         write both requirements locks anew, where pyproject.toml asks for another thing;
#                   with UPGRADE=--upgrade of the newest of everything (first make test-newest)
# make audit        look for known holes in what requirements.lock and constraints.txt name
# make docs         the pages and the reference as a site, in build/site
# make sanitize     the kernels' tests, and calls drawn at random for MINUTES (1), with address and
#                   undefined-behaviour checks (docs/kernels.md)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Modules are compiled as they are imported: to compile all of them takes pip longer than the rest.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
BASE   := $(VENV)/.base
RUNS   := $(VENV)/.runs
READY  := $(VENV)/.ready
NEWEST := .venv-newest
SOURCES := CMakeLists.txt $(wildcard native/*.h native/*.cpp native/*/*)
SAMPLE ?= $(shell date +%s)
MINUTES ?= 1

# $(call step,what is done,command): say it, do it, and say how many seconds it took.
step = @printf '%-62s' '$(1) ...'; from=$$(date +%s); $(2) && echo "$$(($$(date +%s) - from)) s"
# $(call install,instruction sets): griffin itself, from this checkout, with their kernels.
install = $(PIP) --no-deps --no-build-isolation -Ccmake.define.GRIFFIN_KERNELS=$(1) --editable .

.PHONY: demo kernels test test-fast test-slow test-wheel test-arm test-newest test-oracles wheel \
	stopwatch lint lock audit docs sanitize clean

demo: $(RUNS)
	@$(BIN)/python -m tools.demo

kernels: $(RUNS)
	$(call step,compiling the kernels of every instruction set,$(call install,all))

test: $(READY) lint
	$(BIN)/python -m pytest -m "not slow" --sample $(SAMPLE) --share 8 -n 2

test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow and not thorough" --sample $(SAMPLE) -n 2

test-slow: $(READY)
	$(BIN)/python -m pytest -m "slow or sweep"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

sanitize: $(READY)
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DGRIFFIN_SANITIZE=ON \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/sanitize
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
		FUZZ_MINUTES=$(MINUTES) $(BIN)/python native/run_sanitized.py

wheel: $(RUNS)
	@mkdir -p dist && rm -f dist/griffin_lm-*.whl
	$(call step,building a wheel with every kernel,$(BIN)/python -m pip wheel --quiet --no-deps \
		--no-build-isolation --wheel-dir dist .)
	@ls dist/griffin_lm-*.whl

test-wheel: $(READY)
	$(BIN)/python -m pytest -m slow tests/test_wheel.py

# One program, compiled by the same CMake files: here, and for ARM with everything it needs in it.
ARM := -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static
EMULATED := qemu-aarch64 -cpu max
test-arm: $(RUNS)
	$(BIN)/cmake -S . -B build/check -G Ninja -DGRIFFIN_CHECK=ON -DGRIFFIN_KERNELS=portable \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/check
	$(BIN)/cmake -S . -B build/check-arm -G Ninja -DGRIFFIN_CHECK=ON $(ARM) \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/check-arm
	build/check/check write build/check/outputs
	$(EMULATED) build/check-arm/check bits
	$(EMULATED) build/check-arm/check against build/check/outputs

stopwatch: wheel
	$(PYTHON) -m tools.stopwatch demo
	$(PYTHON) -m tools.stopwatch page dist/griffin_lm-*.whl

# Every package at the version and with the hash that the locks name, what builds ours included.
# --no-deps, so that none brings a torch along: that is pinned beside the locks and has no hash, for
# which build of it is right depends on the machine. First what griffin runs on; then the kernels of
# this machine, or what the tests need and all kernels: who tests from nothing compiles once.
$(BASE): pyproject.toml requirements-run.lock constraints.txt
	$(call step,creating $(VENV),$(PYTHON) -m venv $(VENV))
	$(call step,installing what griffin runs on,$(PIP) --no-deps --require-hashes \
		--requirement requirements-run.lock)
	$(call step,installing torch,$(PIP) --constraint constraints.txt torch)
	@touch $(BASE)

$(RUNS): $(BASE) $(SOURCES)
	$(call step,compiling the kernels of this machine,$(call install,native))
	@touch $(RUNS)

$(READY): $(BASE) requirements.lock $(SOURCES)
	$(call step,installing what the tests need while all kernels compile,{ $(PIP) --no-deps \
		--require-hashes --requirement requirements.lock & $(call install,all); \
		built=$$?; wait $$! && test $$built = 0; })
	$(BIN)/python -m pip check
	@touch $(RUNS) $(READY)

COMPILE = $< pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--constraint constraints.txt --no-emit-package torch --annotation-style line \
	--custom-compile-command "make lock" --quiet
lock: build/uv/bin/uv
	$(COMPILE) $(UPGRADE) --extra dev --output-file requirements.lock
	$(COMPILE) --extra serve --extra build --constraint requirements.lock \
		--output-file requirements-run.lock

build/uv/bin/uv:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install --quiet uv

audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit
	build/audit/bin/pip-audit --disable-pip --require-hashes --requirement requirements.lock
	build/audit/bin/pip-audit --disable-pip --no-deps --requirement constraints.txt

docs:
	$(PYTHON) -m venv build/docs
	build/docs/bin/python -m pip install --quiet --requirement tools/site/requirements.txt
	NO_MKDOCS_2_WARNING=1 PATH=build/docs/bin:$$PATH PYTHONPATH=. mkdocs build --strict
	@echo "python3 -m http.server -d build/site 8080 shows it"

test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --editable '.[dev]'
	$(NEWEST)/bin/python -m pip list
	$(NEWEST)/bin/python -m pytest -m "not slow" -n 2

# What they need is in the lock. make_trl.py calls what is private to one version of TRL.
ORACLES := build/oracles
test-oracles: $(READY)
	$(PIP) --no-deps --upgrade --target $(ORACLES) peft 'trl==1.16.*'
	PYTHONPATH=$(ORACLES) $(BIN)/python -m pytest -m slow tests/adapters/test_peft_file.py \
		tests/tune/test_losses.py

clean:
	rm -rf $(VENV) $(NEWEST) build/uv
