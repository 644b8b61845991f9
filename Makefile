# make demo         create the environment, install, let the bundled model write
# make test         create the environment, run lint, types and every test that is not slow
# make test-fast    the same tests without what takes seconds, and of each sweep a twelfth: under
#                   two minutes; the twelfth is drawn by SAMPLE=SEED, which it prints
# make test-newest  every fast test on the newest of everything that pyproject.toml allows, torch
#                   too, in an environment of its own
# make lock         write requirements.lock anew, where pyproject.toml asks for something else;
#                   with UPGRADE=--upgrade of the newest of everything (first make test-newest)
# make audit        look for known holes in what requirements.lock and constraints.txt name
# make docs         the pages and the reference as a site, in build/site
# make sanitize     the kernels' tests, and calls drawn at random for MINUTES (1), with address and
#                   undefined-behaviour checks (docs/kernels.md)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
NEWEST := .venv-newest
SAMPLE ?= $(shell date +%s)
MINUTES ?= 1

.PHONY: demo test test-fast test-slow test-newest lint lock audit docs sanitize clean

demo: $(READY)
	@$(BIN)/griffin generate --model nano --max-tokens 90 --temperature 0.5 \
	    --frequency-penalty 0.3 --seed 2 --echo --stats \
	    "$$(printf 'def factorial(n):\n    """Return')"

test: $(READY) lint
	$(BIN)/python -m pytest -m "not slow" -n 2

test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow and not thorough" --sample $(SAMPLE) -n 2

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

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

# Every package at the version and with the hash that the lock names, what builds ours included.
# --no-deps, so that none brings a torch along: that is pinned beside the lock and has no hash, for
# which build of it is right depends on the machine.
$(READY): pyproject.toml requirements.lock constraints.txt CMakeLists.txt \
		$(wildcard native/*.h native/*.cpp native/*/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	touch $(READY)

lock: build/uv/bin/uv
	$< pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--constraint constraints.txt --no-emit-package torch --annotation-style line \
		--custom-compile-command "make lock" $(UPGRADE) --quiet --output-file requirements.lock

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

clean:
	rm -rf $(VENV) $(NEWEST) build/uv
