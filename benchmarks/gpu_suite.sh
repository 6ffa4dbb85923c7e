#!/usr/bin/env bash
# All that needs a GPU, in under eight minutes and without a network: build, tests on the device, memory checker,
# measurements, block sizes. Needs python3 with torch, triton, numpy, pytest and setuptools; nvcc, cmake, ninja and
# pybind11 for the CUDA C++ kernels. Leaves logs and gpu.json in the folder OUT (default: build/gpu/out).
#   benchmarks/gpu_suite.sh [--rehearse]        --rehearse: on the CPU, interpreted, with small shapes
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHON=${PYTHON:-python3} SITE=$PWD/build/gpu/site PYTHONUNBUFFERED=1
OUT=${OUT:-build/gpu/out}
mkdir -p "$OUT"
rehearse=()
slower=1 # how many times longer than on a GPU machine a step may take
if [[ ${1:-} == --rehearse ]]; then
  rehearse=(--rehearse)
  slower=10
elif [[ $# -gt 0 ]]; then
  echo "gpu_suite.sh takes --rehearse or nothing, got $*" >&2
  exit 2
fi
tests=(test_gpu.py test_cuda_gpu.py)
pytest=("$PYTHON" -m pytest -q --maxfail=8 -p no:cacheprovider -W ignore::RuntimeWarning)
failed=()

step() { # name, seconds, command...: run it with a limit, keep its log, go on whatever comes of it
  local name=$1 limit=$(($2 * slower)) began=$SECONDS
  shift 2
  echo "== $name (at most $limit s)"
  timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.log" | tail -n 60
  local status=${PIPESTATUS[0]}
  [[ $status == 0 ]] || failed+=("$name ($status)")
  echo "== $name: status $status, $((SECONDS - began)) s"
}

plain_build() { # Python and Triton alone, which need no compiler
  rm -rf "$SITE"
  mkdir -p "$SITE"
  cp -r ppl_fast "$SITE"
  cp -r kernels "$SITE/ppl_fast/kernels"
  rm -f "$SITE"/ppl_fast/*.so
}

build() {
  rm -rf "$SITE"
  "$PYTHON" setup.py -q build --build-base build/gpu/temp --build-lib "$SITE"
}

export -f build
if [[ ${#rehearse[@]} -gt 0 ]]; then
  step build 120 env PPL_FAST_CUDA=off bash -c build
else
  step machine 20 bash -c 'nvidia-smi; nvcc --version'
  capability=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
  step build 120 env TORCH_CUDA_ARCH_LIST="$capability" bash -c build
fi
[[ -f $SITE/ppl_fast/kernels/__init__.py ]] || plain_build
export PYTHONPATH=$SITE # python -m puts the working directory before it: tests run in tests/, where no ppl_fast is
step doctor 30 env -C tests "$PYTHON" -c "from ppl_fast.doctor import main; raise SystemExit(main())"

if [[ ${#rehearse[@]} -gt 0 ]]; then
  few="affine or strides or ties-float32 or training"
  step tests 120 env -C tests TRITON_INTERPRET=1 "${pytest[@]}" "${tests[@]}" -k "$few"
else
  step tests 100 env -C tests "${pytest[@]}" "${tests[@]}"
  if command -v compute-sanitizer >/dev/null; then
    few="square-float32 or odd-sizes-float32 or shared-float32 or wide-float32"
    for tool in memcheck racecheck; do # accesses out of bounds; races in shared memory
      step "$tool" 40 env -C tests PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" \
        --error-exitcode 9 "${pytest[@]}" test_gpu.py -k "$few"
    done
  fi
fi
step bench 100 "$PYTHON" benchmarks/gpu_bench.py "${rehearse[@]}" --out "$OUT/gpu.json" --seconds 75
step tune 30 "$PYTHON" benchmarks/gpu_tune.py "${rehearse[@]}"

echo "== all in $SECONDS s; logs and gpu.json in $OUT"
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "== failed: ${failed[*]}"
  exit 1
fi
