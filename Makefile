# The two commands of the README, and what they stand on. Everything is made inside .venv and build/.
#
#   make demo    train nothing, download nothing but packages: photo in, pictures out (see build/demo)
#   make test    lint, types, import directions, the whole test suite
#
# PIP_ARGS reaches every pip install. On Linux the package index serves torch with CUDA (several GB); for the small
# build, name PyTorch's CPU index:  make demo PIP_ARGS="--extra-index-url <PyTorch's CPU wheel index>"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt $(PIP_ARGS)
SOURCES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types fuzz kernels zoo docs reference thumbnails gallery wheel release clean

help:  ## what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(VENV)/.test-ready  ## .venv with everything that development needs

demo: $(VENV)/.demo-ready  ## stylize and denoise a real photo through the whole path
	$(BIN)/python -m impasto.demo --output build/demo

test: $(VENV)/.test-ready lint  ## lint, types, import directions and all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test-ready  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint -c .hadolint.yaml docker/*.Dockerfile; else echo "hadolint is not there; the Dockerfiles were not linted"; fi

types: $(VENV)/.test-ready  ## mypy, on the wheel as a user installs it
	$(BIN)/python tests/check_types.py

fuzz: $(VENV)/.test-ready  ## what reads packages, sidecars, checkpoints, pictures and streams, given 10 minutes of damaged ones each
	$(BIN)/python tests/fuzz/foreign_bytes.py $(READER)

kernels: $(VENV)/.demo-ready  ## compile kernels/*.cu for every architecture: nvcc of CUDA 13.0, and older compilers from PyPI
	$(BIN)/python kernels/build.py

zoo: $(VENV)/.test-ready  ## train, export and judge a model of the zoo, or go on with it: make zoo MODEL=starry-night [GPU=1]
	$(BIN)/python -m impasto.training.zoo $(MODEL) $(if $(MODEL),--run) $(if $(GPU),--gpu)

docs: $(VENV)/.test-ready  ## the API reference from the docstrings, into build/docs
	$(BIN)/python docs/tools/api.py build/docs

reference: $(VENV)/.demo-ready  ## docs/reference, one page a verb, from the command line
	$(BIN)/python docs/tools/reference.py

thumbnails: $(VENV)/.demo-ready  ## docs/pictures/thumbnails, from the models' pictures
	$(BIN)/python docs/tools/thumbnails.py

gallery: $(VENV)/.demo-ready  ## build/gallery: a page that runs every model that ships in the visitor's browser
	$(BIN)/python -m impasto web $(patsubst models/%/manifest.json,%,$(wildcard models/*/manifest.json)) -o build/gallery

wheel: $(VENV)/.created  ## dist/impasto-*.whl; needs no development environment
	@$(PIP) build
	$(BIN)/python -m build --wheel --outdir dist

release: $(VENV)/.created  ## dist/: the wheel and the source distribution, checked by twine (docs/releasing.md)
	@$(PIP) build twine
	rm -rf dist build/lib
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

clean:  ## remove what make has made
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.created:
	@command -v $(PYTHON) > /dev/null || { echo "there is no $(PYTHON) here; name a Python of 3.10 or newer: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Impasto needs Python 3.10 or newer; got " + sys.version.split()[0] + ". Name one: make PYTHON=python3.11")'
	@test ! -e $(VENV) || { echo "$(VENV) is there already and was not made by make; move it away, or choose another: make VENV=build/venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.demo-ready: $(VENV)/.created $(SOURCES)
	@echo "installing into $(VENV) (the first time this downloads torch)"
	@$(PIP) -e '.[demo]' || { echo "the packages above could not be installed; is a package index within reach? PIP_ARGS goes to pip"; exit 1; }
	@touch $@

$(VENV)/.test-ready: $(VENV)/.demo-ready
	@$(PIP) -e '.[demo,dev]'
	@$(PIP) --no-deps spandrel einops # without torchvision, of which each release wants one torch; tests stand in for the two names
	@# TensorRT-RTX builds real engines without a GPU. It has no wheels for macOS; its tests then skip, with the reason.
	@$(PIP) -e '.[rtx]' || echo "TensorRT-RTX cannot be installed here; its tests will be skipped"
	@# CUDA 11.8's compiler, 44 MB, which most GPUs' binaries are from: a test compiles one again.
	@$(BIN)/python kernels/build.py --fetch 11.8 || echo "so the test that compiles with it will be skipped"
	@touch $@
