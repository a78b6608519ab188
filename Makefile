# `make demo` and `make test` are the README's two commands. Each makes its own environment, under .venv.
# PYTHON is the interpreter that environments are made with; pip takes its settings from your configuration.

PYTHON ?= python3
DEMO_ENV := .venv/demo
TEST_ENV := .venv/test
PEERS_ENV := .venv/peers
BIN := $(TEST_ENV)/bin
PYTEST_ARGS ?=
# Tests start hundreds of programs, and each would compile millpond anew.
unexport PYTHONDONTWRITEBYTECODE
BENCH_DATA ?= .cache/bench/av1_gop2 .cache/bench/h264_gop30 .cache/bench/h264_gop250
BENCH_OUT ?= .cache/bench
PEERS = $(if $(wildcard $(PEERS_ENV)/ready),--peers-python $(PEERS_ENV)/bin/python)
SMOKE_DATA := .cache/bench/smoke

DRAW = $(BIN)/python bench/plot.py --out $(BENCH_OUT)

.PHONY: demo test lint types docs setup bench bench-clips bench-guard bench-streaming bench-decoders bench-sweep bench-soak bench-scale bench-peers bench-smoke fuzz chaos soak clean
.DELETE_ON_ERROR:

demo: $(DEMO_ENV)/ready
	$(DEMO_ENV)/bin/millpond demo

# What tests of one file share is made once where the same process runs most of them: hence worksteal.
test: lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: $(TEST_ENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(TEST_ENV)/ready
	$(BIN)/mypy

# The site, in build/docs; a warning is an error. Nothing is fetched.
docs: $(TEST_ENV)/ready
	$(BIN)/python -m sphinx -W --keep-going -n docs build/docs

setup: $(TEST_ENV)/ready

# Shuffled epochs and windows beside the ceiling, and beside the peers where `make bench-peers` has been run.
bench: $(TEST_ENV)/ready $(BENCH_DATA)
	mkdir -p $(BENCH_OUT)
	$(BIN)/python bench/epoch.py $(BENCH_DATA) --json $(BENCH_OUT)/epoch.json $(PEERS)
	$(DRAW) $(BENCH_OUT)/epoch.json
	$(BIN)/python bench/windows.py $(BENCH_DATA) --json $(BENCH_OUT)/windows.json $(PEERS)
	$(DRAW) $(BENCH_OUT)/windows.json

# Short clips beside torch's DataLoader with three decoders, and SPDL; and what becomes of damaged ones.
bench-clips: $(TEST_ENV)/ready
	mkdir -p $(BENCH_OUT)
	$(BIN)/python bench/clips.py --json $(BENCH_OUT)/clips.json $(PEERS)
	$(DRAW) $(BENCH_OUT)/clips.json

# A guarded call beside a fork per call, and beside pebble where it is installed.
bench-guard: $(TEST_ENV)/ready
	mkdir -p $(BENCH_OUT)
	$(BIN)/python bench/guard.py --json $(BENCH_OUT)/guard.json $(PEERS)
	$(DRAW) $(BENCH_OUT)/guard.json

# Datasets behind a server of ours, beside the same in memory; clips behind it, beside WebDataset.
bench-streaming: $(TEST_ENV)/ready $(BENCH_DATA)
	mkdir -p $(BENCH_OUT)
	$(BIN)/python bench/streaming.py $(BENCH_DATA) --json $(BENCH_OUT)/streaming.json
	$(BIN)/python bench/streaming_peers.py --json $(BENCH_OUT)/streaming_peers.json $(PEERS)
	$(DRAW) $(BENCH_OUT)/streaming.json $(BENCH_OUT)/streaming_peers.json

# Frames at random, beside torchcodec's decoders: memory over 20,000 accesses (the better part of an hour), and rates.
bench-decoders: $(TEST_ENV)/ready $(BENCH_DATA)
	mkdir -p $(BENCH_OUT)
	$(BIN)/python bench/decoder_cache.py --json $(BENCH_OUT)/decoder_cache.json
	$(DRAW) $(BENCH_OUT)/decoder_cache.json
	$(BIN)/python bench/random_access.py $(BENCH_DATA) --json $(BENCH_OUT)/random_access.json $(PEERS)
	$(DRAW) $(BENCH_OUT)/random_access.json

# Sweeps: memory of 200 jobs that leak 72 MB each (some minutes), what a chunk costs over subprocess.run, and whether
# merged metrics are the same bytes. A process of the first takes 2.2 GB.
bench-sweep: $(TEST_ENV)/ready
	mkdir -p $(BENCH_OUT)
	$(BIN)/python bench/sweep_leak.py --json $(BENCH_OUT)/sweep_leak.json
	$(DRAW) $(BENCH_OUT)/sweep_leak.json
	$(BIN)/python bench/sweep_overhead.py --json $(BENCH_OUT)/sweep_overhead.json
	$(BIN)/python bench/sweep_merge.py --json $(BENCH_OUT)/sweep_merge.json

.cache/bench/av1_gop2: | $(TEST_ENV)/ready
	$(BIN)/millpond synth $@ --episodes 30 --frames 100 --cameras 2 --size 640x480 --codec av1 --gop 2
.cache/bench/h264_gop30: | $(TEST_ENV)/ready
	$(BIN)/millpond synth $@ --episodes 30 --frames 100 --cameras 2 --size 640x480 --codec h264 --gop 30
.cache/bench/h264_gop250: | $(TEST_ENV)/ready
	$(BIN)/millpond synth $@ --episodes 30 --frames 100 --cameras 2 --size 640x480 --codec h264 --gop 250

# The long runs, whose short forms are tests: corrupted files, workers under fire, ten thousand guarded calls.
FUZZ_SECONDS ?= 600
CHAOS_SECONDS ?= 60

fuzz: $(TEST_ENV)/ready
	$(BIN)/python bench/fuzz.py --seconds $(FUZZ_SECONDS)

chaos: $(TEST_ENV)/ready
	$(BIN)/python bench/chaos.py --seconds $(CHAOS_SECONDS)

soak: $(TEST_ENV)/ready
	$(BIN)/python bench/guard.py --soak

# Leaks that `millpond soak` must find, and what it must call flat: six minutes.
bench-soak: $(TEST_ENV)/ready
	mkdir -p $(BENCH_OUT)
	$(BIN)/python bench/soak_leaks.py --json $(BENCH_OUT)/soak_leaks.json

# The plan alone, of 10^9 frames and 1,024 ranks: a minute.
bench-scale: $(TEST_ENV)/ready
	mkdir -p $(BENCH_OUT)
	$(BIN)/python bench/scale.py --json $(BENCH_OUT)/scale.json
	$(DRAW) $(BENCH_OUT)/scale.json

bench-peers: $(PEERS_ENV)/ready

# Does every peer run, and give the right pictures? On a tiny dataset; the figures mean nothing.
bench-smoke: $(TEST_ENV)/ready $(PEERS_ENV)/ready
	rm -rf $(SMOKE_DATA)
	$(BIN)/millpond synth $(SMOKE_DATA) --episodes 4 --frames 24 --cameras 2 --size 128x96 --codec h264 --gop 8
	$(BIN)/python bench/epoch.py $(SMOKE_DATA) --rounds 1 --seconds 0 --ceiling-seconds 0.1 --batch-size 8 --peers-python $(PEERS_ENV)/bin/python
	$(BIN)/python bench/windows.py $(SMOKE_DATA) --rounds 1 --seconds 0 --ceiling-seconds 0.1 --batch-size 8 --peers-python $(PEERS_ENV)/bin/python

# Newer ones may lack wheels, and may just as well work.
CHECK_PYTHON = import sys; v = sys.version_info; \
  v < (3, 11) and sys.exit("millpond needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d; name another: make PYTHON=..." % v[:2]); \
  v >= (3, 14) and print("warning: millpond is meant for Python 3.11 to 3.13; $(PYTHON) is %d.%d" % v[:2], file=sys.stderr)

# An empty environment with a pip that knows dependency groups.
define environment
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/pip install --quiet --upgrade 'pip>=25.1'
endef

# No CUDA is needed; the base install has no torch.
$(DEMO_ENV)/ready: pyproject.toml
	$(call environment,$(DEMO_ENV))
	$(DEMO_ENV)/bin/pip install --quiet --editable .
	touch $@

# torchcodec without its dependencies: it would choose a torch of its own. Tests that want it say why they are skipped
# where FFmpeg's libraries are not installed. LeRobot goes into a folder of its own, which only tests of it look at: what
# comes with it (pandas, for pyarrow to import, for one) would change what other tests run.
$(TEST_ENV)/ready: pyproject.toml
	$(call environment,$(TEST_ENV))
	$(BIN)/pip install --quiet --group test --editable . torch==2.13.0
	$(BIN)/pip install --quiet --no-deps torchcodec==0.13.0
	$(BIN)/pip install --quiet --no-deps --target $(TEST_ENV)/lerobot --group lerobot
	touch $@

# The peers, and LeRobot's datasets without its robots, simulators and policies; bench/README.md says why these versions.
$(PEERS_ENV)/ready: bench/peers.txt
	$(call environment,$(PEERS_ENV))
	$(PEERS_ENV)/bin/pip install --quiet --requirement bench/peers.txt
	$(PEERS_ENV)/bin/pip install --quiet --no-deps lerobot==0.4.4 torchcodec==0.13.0 torchvision==0.28.0
	touch $@

clean:
	rm -rf .venv .cache/bench .cache/fuzz-offenders demo-data demo-clips
