# make demo   create the environment, install, let the bundled model write
# make test   create the environment, run lint, types and every fast test
# make sanitize   the kernels' tests with address and undefined-behaviour checks (docs/kernels.md)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-slow lint sanitize clean

demo: $(READY)
	@$(BIN)/griffin generate --model nano --max-tokens 90 --temperature 0.5 --frequency-penalty 0.3 --seed 2 \
	    --echo --stats "$$(printf 'def factorial(n):\n    """Return')"

test: $(READY) lint
	$(BIN)/python -m pytest -m "not slow" -n 2

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
		ASAN_OPTIONS=detect_leaks=0 $(BIN)/python native/run_sanitized.py

# torch comes first and pinned: a bare `torch` may fetch another build, with gigabytes of libraries.
$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*.h native/*.cpp native/*/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV)
