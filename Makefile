# Every target does its own set-up: .venv is made when it is missing or older than what it is made from.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.stamp

.PHONY: demo test lint bench docs clean campaign-kill campaign-soak campaign-fuzz campaign-followers campaign-day campaign-slow campaign-capacity campaign-versions campaign-flight campaign-blackbox campaign-service-kill campaign-fleet campaign-spark campaign-faults campaign-cycles campaign-memcheck campaign-remote-exec campaign-wheels

demo: $(STAMP)
	$(PY) -m tracesvc demo

test: $(STAMP)
	tools/system-packages
	tools/node-packages $(VENV)/judges
	$(PY) -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy --strict

bench: $(STAMP)
	$(PY) -m benchmarks

# campaign-versions, campaign-wheels: PYTHONS='...' chooses the interpreters.
campaign-kill campaign-soak campaign-fuzz campaign-followers campaign-day campaign-slow campaign-capacity campaign-versions campaign-flight campaign-blackbox campaign-cycles campaign-memcheck campaign-remote-exec campaign-wheels: $(STAMP)
	$(PY) -m benchmarks.campaigns $(@:campaign-%=%)

campaign-service-kill: $(STAMP)
	TRACESVC_KILLS=300 TRACESVC_CLIENTS=8 $(PY) -m pytest -q -s tests/service/test_kill.py

# Every allocation of the native recorder fails once, on either way into trio.
campaign-faults: $(STAMP)
	TRACESVC_TEST_FAULTS=all $(PY) -m pytest -s -n 2 tests/recorder/test_faults.py

# Three NATS servers, two replicas, an archiver, an S3 server; everything is killed, stopped, cut off: some 4 minutes.
campaign-fleet: $(STAMP)
	tools/system-packages
	$(PY) -m tests.fleet.campaign

# pyspark has half a gigabyte: an environment of its own. Needs a Java runtime.
campaign-spark: $(STAMP)
	test -x build/spark/bin/python || { $(PY) -m venv build/spark && build/spark/bin/python -m pip install -q pyspark==4.3.0; }
	$(PY) -m tests.fleet.spark $(CURDIR)/build/spark/bin/python

docs: $(STAMP)
	$(PY) -m sphinx -n -W --keep-going -q docs build/docs

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

# PYTHON=... chooses the interpreter of a .venv that is yet to be made.
$(STAMP): pyproject.toml constraints.txt tools/make-venv $(wildcard tracesvc/*/csrc/*)
	PYTHON='$(PYTHON)' tools/make-venv $(VENV)
	@touch $@
