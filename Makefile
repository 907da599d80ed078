# `make demo`, `make app` and `make test` need nothing but Python 3.10 or newer with its venv module: they set up .venv first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# Small models gain nothing from more threads, and the tests' processes would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest
PROCESSES := --numprocesses auto --maxprocesses 8 --dist worksteal
SUITE := $(PROCESSES) -m "not slow and not gpu and not hub"

# Else setuptools says a page about folders named like a package, which is what this layout means.
QUIETLY := PYTHONWARNINGS=ignore

.PHONY: demo app test test-versions test-faults test-fresh test-transformers lint format clean

# A stamp is newer than pyproject.toml once the environment holds what it asks for: what trains and shows, or, with the
# second, what tests need too.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}; name one by make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(QUIETLY) $(RUN) -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed
	$(QUIETLY) $(RUN) -m pip install --quiet --editable '.[test,quantized]'
	touch $@

demo: $(VENV)/.installed
	$(RUN) -m training.sweep

# Models of several patch sizes and tasks in a browser; the first start trains small ones, later ones take those.
app: $(VENV)/.installed
	$(RUN) -m training.demo_app

test: $(VENV)/.installed-tests
	$(PYTEST) $(SUITE)

# The same with the oldest torch and transformers that are supported, with those of today's GPU images and with the newest
# that pip finds, each in an environment of its own, beside .venv (6 GB): an hour. (No torchao: it wants a newer torch than
# our oldest, and with an older one transformers does not even import. Older Tritons interpret with older numpys only.)
test-versions: test-version-oldest test-version-gpu test-version-newest
test-version-oldest: PACKAGES := torch==2.8.* torchvision==0.23.* transformers==5.17.* numpy<2.4
test-version-gpu: PACKAGES := torch==2.11.* torchvision==0.26.* transformers==5.17.* numpy<2.4
test-version-newest: PACKAGES := torch torchvision transformers

test-version-%:
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --upgrade pip
	$(QUIETLY) $(VENV)-$*/bin/python -m pip install --quiet --upgrade --editable '.[test]' $(PACKAGES:%='%')
	$(VENV)-$*/bin/python -m pip list | grep -E '^(torch|torchvision|transformers) '
	$(subst $(RUN),$(VENV)-$*/bin/python,$(PYTEST)) $(SUITE)

# Kills training runs at random moments some forty times, and trains in fp16 against fp32.
test-faults: $(VENV)/.installed-tests
	$(PYTEST) -m slow tests/training/engine/test_resume.py tests/training/engine/test_stages.py tests/training/engine/test_precision.py

# Makes an environment of torch, torchvision, transformers and pillow alone (6 GB) and loads published folders in it.
test-fresh: $(VENV)/.installed-tests
	$(PYTEST) -m slow tests/training/hub/test_fresh_environment.py

# transformers' own test suites on our classes; they are in the source distribution of the version that is installed. Their
# marks are not ours, so those are not strict here; by the environment, since one of the suites' tests starts pytest anew.
test-transformers: $(VENV)/.installed-tests
	version=$$($(RUN) -c 'import importlib.metadata as metadata; print(metadata.version("transformers"))') && \
	if [ ! -d build/transformers-$$version/tests ]; then \
		$(RUN) -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation --dest build transformers==$$version && \
		tar -xzf build/transformers-$$version.tar.gz -C build transformers-$$version/tests; \
	fi
	[ -d build/parameterized ] || $(RUN) -m pip install --quiet --no-deps --target build/parameterized parameterized
	PYTHONPATH=build/parameterized PYTEST_ADDOPTS='-o addopts=-ra -W ignore::pytest.PytestUnknownMarkWarning' \
		$(PYTEST) $(PROCESSES) tests/transformers_suites.py

lint: $(VENV)/.installed-tests
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-logo --no-cache

format: $(VENV)/.installed-tests
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) $(VENV)-*
