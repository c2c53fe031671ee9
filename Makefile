# make app    set up .venv once, then open the page on 127.0.0.1 (GRADIO_SERVER_PORT, else 7860)
# make test   set up, then run the tests          make test ARGS='tests/test_media.py -x'
# make examples   the comparisons that the page shows first; after new weights
# make lint   style, import order, types           make bench   seconds and memory of the whole journey
#
# PYTHON  the interpreter to build .venv from; else the first of python3, python3.12, python3.11, python that is 3.11 or
#         3.12; else uv's 3.12, where uv is installed.
# TORCH   what pip is asked for before anything else. On Linux the package index serves the CUDA build (several GB). For the
#         small CPU build set PIP_EXTRA_INDEX_URL to the CPU wheel index that PyTorch's own "Get started" page names, and
#         run   make app TORCH=torch==2.13.0+cpu
#         pip then finds 2.13.0+cpu there and, since it satisfies requirements.txt, keeps it.

TORCH ?= torch==2.13.0
PYTHON ?=
ARGS ?=

venv := .venv
python := $(venv)/bin/python
pip := $(python) -m pip --disable-pip-version-check

.PHONY: app test lint examples bench clean
.DELETE_ON_ERROR:

app: $(venv)/ready
	$(python) app.py

test: $(venv)/ready-dev
	$(python) -m pytest $(ARGS)

lint: $(venv)/ready-dev
	$(python) -m ruff check .
	$(venv)/bin/lint-imports --no-cache --no-logo
	$(venv)/bin/basedpyright --pythonpath $(python)

examples: $(venv)/ready
	$(python) tools/make_examples.py

bench: $(venv)/ready
	$(python) tools/bench.py $(ARGS)

clean:
	rm -rf $(venv)

# The OpenCV builds that mediapipe and face-alignment ask for open windows, so they load libGL, which a slim machine lacks.
# There the headless build of the same version is laid over them: same code, no windows, and `pip check` stays clean.
$(venv)/ready: requirements.txt pyproject.toml | $(venv)/bin/pip
	$(pip) install "$(TORCH)"
	$(pip) install -e .
	@$(python) -c 'import cv2' 2>/dev/null || { \
	  version=$$($(python) -c 'import importlib.metadata as m; print(m.version("opencv-contrib-python"))'); \
	  echo "OpenCV does not load here (no libGL?): laying its headless build $$version over it."; \
	  $(pip) install --no-deps --force-reinstall "opencv-contrib-python-headless==$$version" && $(python) -c 'import cv2'; }
	@touch $@

$(venv)/ready-dev: $(venv)/ready
	$(pip) install -e '.[dev]'
	@touch $@

$(venv)/bin/pip:
	@for candidate in $(PYTHON) $(if $(PYTHON),,python3 python3.12 python3.11 python); do \
	  if $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then \
	    echo "Setting up $(venv) with $$($$candidate --version) (once; some minutes, 3 GB, or 7 GB with the CUDA build of torch)."; \
	    $$candidate -m venv $(venv) && exit 0; rm -rf $(venv); exit 1; \
	  fi; \
	done; \
	if [ -z "$(PYTHON)" ] && command -v uv >/dev/null; then \
	  echo "No Python 3.11 or 3.12 here: uv sets up $(venv) with 3.12, fetching it where needed."; \
	  uv venv --quiet --seed --python 3.12 $(venv) && exit 0; rm -rf $(venv); exit 1; \
	fi; \
	found=$$($(if $(PYTHON),$(PYTHON),python3) --version 2>/dev/null) || found="no Python"; \
	echo "syncdiff needs Python 3.11 or 3.12, and found $$found: mediapipe has no wheels for others." >&2; \
	echo "Get 3.12 with your system's packages (python3.12 and python3.12-venv), from python.org, or with uv" >&2; \
	echo "(https://docs.astral.sh/uv), which make then uses by itself; or name one: make app PYTHON=/path/to/python3.12" >&2; \
	exit 1
