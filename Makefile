# Every target does its own set-up. Two cores, no GPU and a package index are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
DEMO_STORE ?= stores/demo
DEMO_RUN ?= $(DEMO_STORE)-run
# make demo INDEX=URL takes PyTorch from another index, such as that of its builds without NVIDIA's 3 GB.
INDEX ?=
# Tests run in several processes; more threads in each only make them wait for each other.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test check bench mutants torture install clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about three minutes and 7.5 GB of disk on a fresh machine, 3 GB less with INDEX=URL of PyTorch for the processor alone"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(INDEX),--extra-index-url $(INDEX)) -c constraints.txt -e ".[all,dev]"
	@touch $(STAMP)

# A command of the demo: its main figures are shown, or what run ends with; all else goes to a file, which is shown where
# it fails. One thread, as the README's figures.
LOG = $(DEMO_STORE).log
SHOW = @mkdir -p $(dir $(DEMO_STORE)); show() { echo "\$$ $$*"; program=$$1; shift; lines=40; [ $$1 != run ] || lines=1; \
	OMP_NUM_THREADS=1 $(BIN)/$$program "$$@" >$(LOG).last 2>>$(LOG) || { tail -n 20 $(LOG) $(LOG).last; exit 1; }; \
	cat $(LOG).last >>$(LOG); sed '/^ *$$/d; /^ ─/d; /^details=true/d' $(LOG).last | tail -n $$lines; }; show
ON_DEMO = dataset=demo store=$(DEMO_STORE)

demo: $(STAMP)
	$(SHOW) wsolpipe run stage=proposals,cams $(ON_DEMO)
	$(SHOW) wsolpipe eval stage=cls_maps $(ON_DEMO)
	$(SHOW) wsolpipe eval stage=proposals $(ON_DEMO)
	$(SHOW) wsolpipe run stage=clip_cams,text_anchors,val_boxes val_boxes.annotator=clip split=val,test $(ON_DEMO)
	$(SHOW) wsolpipe eval stage=clip_cams split=test $(ON_DEMO)
	$(SHOW) wsolpipe eval stage=val_boxes val_boxes.annotator=clip split=val $(ON_DEMO)
	$(SHOW) wsoltrain preview $(ON_DEMO) out=$(DEMO_STORE)/preview.png
	$(SHOW) wsolpipe report $(ON_DEMO)
	$(SHOW) wsoltrain fit workers=1 recipe=dips_workshop $(ON_DEMO) out=$(DEMO_RUN)
	$(SHOW) wsoltrain select runs=$(DEMO_RUN)
	$(SHOW) wsoltrain eval workers=1 checkpoint=$(DEMO_RUN) $(ON_DEMO) maps=cams must_beat=true
	@rm -f $(LOG).last
	@echo "Next: (all that was said is in $(LOG); details=true after any eval shows every figure)"
	@echo "  1. open $(DEMO_STORE)/demo/report.html in a browser: sort rows by IoU, move the threshold, choose a layer"
	@echo "  2. open $(DEMO_STORE)/preview.png: what a training step sees"
	@echo "  3. your own images: docs/guide/first-hour.md, after . $(BIN)/activate"

test: $(STAMP)
	@$(BIN)/python -m compileall -q pipeline trainer # once, where PYTHONDONTWRITEBYTECODE has every process do it anew
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist worksteal

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_structure.py
	$(BIN)/python tools/reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(STAMP) $(BENCH_STAMP)
	$(BIN)/python tools/bench/run_all.py --write docs/benchmarks.md

# Packages that are there only to be compared with: they bring a second OpenCV and other versions of what is used here.
$(BENCH_STAMP): tools/bench/requirements.txt
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@echo "installing into $(BENCH_VENV) what benches compare with"
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tools/bench/requirements.txt
	@touch $(BENCH_STAMP)

# About an hour on two cores; cosmic-ray comes for this alone.
mutants: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tools/mutants/requirements.txt
	$(BIN)/python tools/mutants/mutants.py --count 150 --jobs $(JOBS)

torture: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tools/torture.py --kills 200 --attacks 500 --out build/attacks.txt

clean:
	rm -rf stores .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
