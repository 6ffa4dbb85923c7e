#!/usr/bin/env bash
# All that needs a GPU, in one call of under eight minutes and without a network: build; tests on the device beside the
# checkers of memory and races; then, alone, measurements and block sizes. Needs python3 with torch, triton, numpy,
# pytest, pytest-benchmark, pillow and safetensors, better with pytest-xdist; nvcc, cmake, ninja and pybind11 for the
# CUDA C++ kernels. Leaves logs and gpu.json in the folder OUT (default: build/gpu/out).
#   benchmarks/gpu_suite.sh [--rehearse]        --rehearse: on the CPU, by interpreter and emulator, with small shapes
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-python3} SITE=$PWD/build/gpu/site TEMP=$PWD/build/gpu/temp PYTHONUNBUFFERED=1
PATH=$(dirname "$(command -v "$PYTHON")"):$PATH:/usr/local/cuda/bin
OUT=$(realpath -m "${OUT:-build/gpu/out}")
mkdir -p "$OUT"
rm -f "$OUT/gpu.json" "$OUT/failed"
rehearse=()
total=${SUITE_SECONDS:-460} # for all steps together; what finds no time is noted as left out
slower=1  # how many times longer than on a GPU machine a step may take
if [[ ${1:-} == --rehearse ]]; then
  rehearse=(--rehearse)
  slower=10
elif [[ $# -gt 0 ]]; then
  echo "gpu_suite.sh takes --rehearse or nothing, got $*" >&2
  exit 2
fi

failed() {
  echo "$1" >>"$OUT/failed"
}

step() { # name, seconds, command...: run it with a limit, keep its log, go on whatever comes of it
  local name=$1 limit=$(($2 * slower)) left=$((total * slower - SECONDS)) began=$SECONDS status=0
  shift 2
  ((limit = limit < left ? limit : left))
  if ((limit < 5)); then
    echo "== $name: left out, out of time"
    failed "$name (out of time)"
    return
  fi
  timeout --kill-after 5 "$limit" "$@" >"$OUT/$name.log" 2>&1 || status=$?
  [[ $status == 0 ]] || failed "$name ($status)"
  echo "== $name (at most $limit s)"
  tail -n 60 "$OUT/$name.log"
  echo "== $name: status $status, $((SECONDS - began)) s"
}

beside() { # a step that measures nothing: on a GPU, at the same time as others of its kind
  if [[ ${#rehearse[@]} -gt 0 ]]; then
    step "$@"
  else
    step "$@" &
  fi
}

bench() { # seconds, group...: rows that would begin later are noted as left out
  local seconds=$(($1 * slower)) left=$((total * slower - SECONDS))
  shift
  ((seconds = seconds < left ? seconds : left))
  local until=$(($(date +%s) + seconds))
  step "$1" $((seconds / slower + 20)) "$PYTHON" benchmarks/gpu_bench.py "$@" "${rehearse[@]}" \
    --out "$OUT/gpu.json" --until "$until"
}

build() { # CUDA on or off: by cmake itself, whatever setuptools there is
  rm -rf "$SITE" "$TEMP/CMakeCache.txt" # which may be of another Python
  mkdir -p "$SITE"
  cp -r ppl_fast "$SITE" # Python and Triton alone are of use, too
  cp -r kernels "$SITE/ppl_fast/kernels"
  rm -f "$SITE"/ppl_fast/*.so
  cmake -S . -B "$TEMP" -G Ninja -DCMAKE_INSTALL_PREFIX="$SITE/ppl_fast" -DPPL_FAST_CUDA="$1" \
    -DPPL_FAST_SIMD_LEVELS=baseline -DPython_EXECUTABLE="$(command -v "$PYTHON")" \
    -DTORCH_DIR="$("$PYTHON" -c 'import os, torch; print(os.path.dirname(torch.__file__))')" \
    -DTORCH_VERSION="$("$PYTHON" -c 'import torch; print(torch.__version__)')" \
    -Dpybind11_DIR="$("$PYTHON" -c 'import pybind11; print(pybind11.get_cmake_dir())')" &&
    cmake --build "$TEMP" --parallel "${MAX_JOBS:-$(nproc)}" && cmake --install "$TEMP"
}
export -f build

if [[ ${#rehearse[@]} -gt 0 ]]; then
  step build 60 bash -c "build off"
else
  step machine 20 bash -c 'nvidia-smi; nvcc --version'
  TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
  export TORCH_CUDA_ARCH_LIST
  cuda=on
  command -v nvcc >/dev/null || cuda=off
  step build 120 bash -c "build $cuda"
fi
export PYTHONPATH=$SITE # python -m puts the working directory before it: tests run in tests/, where no ppl_fast is
beside doctor 60 env -C tests "$PYTHON" -c "from ppl_fast.doctor import main; raise SystemExit(main())"

tests=("$PYTHON" -m pytest -q -p no:cacheprovider -W ignore::RuntimeWarning test_gpu.py test_gpu_models.py test_cuda_gpu.py)
if [[ ${#rehearse[@]} -gt 0 ]]; then
  step tests 100 env -C tests TRITON_INTERPRET=1 "${tests[@]}" -k "affine or strides or ties-float32 or training"
else
  "$PYTHON" -c "import xdist" && tests+=(-n 8 --dist worksteal) # Triton compiles for most of the time
  beside tests 140 env -C tests CUBLAS_WORKSPACE_CONFIG=:4096:8 "${tests[@]}"
fi

checked() { # tool, the emulator's build that stands for it
  if [[ ${#rehearse[@]} -gt 0 ]]; then
    step "$1" 120 "$PYTHON" benchmarks/gpu_check.py --rehearse "$2" --seconds 60 # the build included
  elif command -v compute-sanitizer >/dev/null; then
    beside "$1" 120 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --report-api-errors no \
      --error-exitcode 9 "$PYTHON" benchmarks/gpu_check.py --seconds 75
  else
    failed "$1 (there is no compute-sanitizer)"
  fi
}
checked memcheck sanitized # accesses out of bounds
checked racecheck watched  # races in shared memory
if [[ ${#rehearse[@]} -eq 0 ]]; then # what the rows below compile is kept on disk, as far as it comes beside the tests
  beside compile 95 "$PYTHON" benchmarks/gpu_bench.py compiled compiled_models --out "$TEMP/unused.json"
fi
wait
bench 40 cpp
bench 70 models
bench 40 demo
bench 30 estimate
bench 40 formulas
bench 50 triton
bench 20 loading
bench 40 compiled
bench 50 models_float32
step tune 40 "$PYTHON" benchmarks/gpu_tune.py "${rehearse[@]}"
bench $((total - 25)) compiled_models

echo "== all in $SECONDS s; logs and gpu.json in $OUT"
if [[ -e $OUT/failed ]]; then
  echo "== failed: $(paste -sd, "$OUT/failed")"
  exit 1
fi
