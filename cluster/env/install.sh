#!/usr/bin/env bash
# Make .venv from a lock, or leave it as it is when it was made from the same lock.
#
#   cluster/env/install.sh [cpu|cuda] [FOLDER]      (default: cpu .venv)
#
# PYTHON names the interpreter to use (3.11 or 3.12). pip's own settings say where packages come
# from. Nothing is resolved here: the lock lists every package (see cluster/README.md).
set -euo pipefail
cd "$(dirname "$0")/../.."

device=${1:-cpu}
venv=${2:-.venv}
lock=cluster/env/$device.txt
if [ ! -f "$lock" ]; then
  echo "the environment must be one of 'cpu' or 'cuda', got '$device'" >&2
  exit 2
fi

# The folder is part of the key: the scripts of a virtual environment break when it is moved.
lock_key=$( (pwd; sed '/^#/d' "$lock") | sha256sum)
project_key=$(sha256sum < pyproject.toml)
lock_stamp=$venv/.lock-stamp
project_stamp=$venv/.project-stamp

is_current() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python must be 3.11 or 3.12, got none of: ${PYTHON:-python3.11 python3.12 python3};" \
    "name one with PYTHON=" >&2
  return 2
}

pip_install() {
  # DS_BUILD_OPS=0: DeepSpeed's kernels are compiled when they are first used, if at all.
  DS_BUILD_OPS=0 PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install \
    -qq --no-deps --no-input --no-build-isolation "$@"
}

check_cpu_torch() {
  # Read, not imported: at this point torch's own requirements are not there yet.
  "$venv/bin/python" - <<'PYTHON'
import importlib.util, pathlib, runpy, sys
version = pathlib.Path(importlib.util.find_spec("torch").origin).with_name("version.py")
cuda = runpy.run_path(str(version))["cuda"]
if cuda is not None:
    sys.exit(f"torch must be the CPU build, got the CUDA {cuda} build, which is all that the package "
             "index has for this Python: set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels, "
             "or PIP_FIND_LINKS to a folder with the wheel, and run this again")
PYTHON
}

if is_current "$lock_stamp" "$lock_key" && is_current "$project_stamp" "$project_key"; then
  exit 0
fi

unset PYTHONPATH PYTHONHOME
if ! is_current "$lock_stamp" "$lock_key"; then
  SECONDS=0
  python=$(find_python)
  echo "==> $venv with $("$python" --version), from $lock: a few minutes"
  "$python" -m venv --clear "$venv"
  # First what the others are built with, and torch, whose build decides whether to go on.
  pip_install $(grep -E '^(setuptools|torch)==' "$lock")
  if [ "$device" = cpu ]; then check_cpu_torch; fi
  pip_install -r "$lock"
  echo "$lock_key" > "$lock_stamp"
  echo "==> $(grep -c '==' "$lock") packages in $SECONDS s"
fi
pip_install --editable .
"$venv/bin/python" -c 'import torch, vllm, c2s_rl; print("==> torch", torch.__version__, "vllm", vllm.__version__)'
echo "$project_key" > "$project_stamp"
