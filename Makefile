# Two commands set everything up: `make demo` and `make test`. PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo demo-paint test test-fast check gate leaderboard clean

demo: $(VENV)/.installed
	$(BIN)/mpm-eval run --task transfer --task llava_zh --task alignment --model mpm-tiny \
	    --languages core --out results/demo/runs/mpm-tiny
	$(BIN)/mpm-eval show results/demo/runs/mpm-tiny
	$(BIN)/mpm-eval leaderboard --runs results/demo/runs --out results/demo

# A sheet of emoji that the shipped painter paints from names in five languages: a minute and a half.
demo-paint: $(VENV)/.installed-paint
	$(BIN)/mpm-eval run --task emoji_paint --model mpm-tiny-paint --languages core --limit 12 \
	    --out results/demo/runs/mpm-tiny-paint
	$(BIN)/mpm-eval contact-sheet results/demo/runs/mpm-tiny-paint

# Bytecode is written even where the environment says not to: tests start the program hundreds of times.
test: $(VENV)/.installed-test
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2

# The inner loop: 30 to 33 seconds on 2 cores, of which importing transformers alone would be four.
test-fast: $(VENV)/.installed-test
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 -m "not slow" \
	    --ignore tests/backends/test_huggingface.py --ignore tests/backends/test_encoding.py \
	    --ignore tests/images/test_huggingface.py

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mpm_eval training

# Is the shipped checkpoint as good as its committed baseline? docs/ci.md says how to renew that.
gate: $(VENV)/.installed
	rm -rf results/gate
	$(BIN)/mpm-eval run --task emoji_choice_validation --task emoji_caption_validation \
	    --languages core --limit 150 --model mpm-tiny --out results/gate/runs/mpm-tiny
	$(BIN)/mpm-eval gate --baseline results/baselines/mpm-tiny-limit150.json \
	    --candidate results/gate/runs/mpm-tiny --rules .ci/gate.toml --junit results/gate/gate.xml

# The committed leaderboard, from nothing but the shipped checkpoint.
leaderboard: $(VENV)/.installed
	$(BIN)/mpm-eval run --task emoji --task transfer --task robustness --task llava --task probe \
	    --task emoji_choice_validation --languages core --model mpm-tiny
	$(BIN)/mpm-eval run --task emoji --task transfer --task robustness --task llava \
	    --task emoji_choice_validation --languages core --model mpm-tiny --control blind
	$(BIN)/mpm-eval leaderboard
	$(BIN)/mpm-eval card mpm-tiny

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-paint: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[paint]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-paint

clean:
	rm -rf $(VENV) results/demo results/gate
