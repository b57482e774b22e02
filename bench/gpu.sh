#!/usr/bin/env bash
# Builds the CUDA part, runs its tests on the GPU of this machine, then times it beside its peers and writes a dated report.
#
# bench/gpu.sh [--offline] [--virtual] [--out FOLDER]
#   --offline   no network: build with what is installed (CMake, ninja, scikit-build-core, pybind11, nvcc 13). IVK_NVCC names the
#               compiler and IVK_CUTLASS the folder of CUTLASS's headers where the packages of build_tools/ivk_cuda.py are missing.
#   --virtual   everything but the timings, on the virtual GPU of tests/vgpu; small shapes
#   --out       where the report goes (default: bench/results)
set -euo pipefail
cd "$(dirname "$0")/.."
offline= where=real out=bench/results
while [ $# -gt 0 ]; do
    case $1 in
        --offline) offline=1 ;;
        --virtual) where=virtual ;;
        --out) out=${2:?--out takes a folder} && shift ;;
        *) echo "gpu.sh: $1; allowed: --offline, --virtual, --out FOLDER" >&2 && exit 2 ;;
    esac
    shift
done
python=${PYTHON:-python}

echo "== build"
if [ -n "$offline" ]; then
    IVK_CUDA=1 "$python" -m pip install --no-build-isolation --no-deps --no-index . \
        ${IVK_NVCC:+-C cmake.define.CMAKE_CUDA_COMPILER="$IVK_NVCC"} ${IVK_CUTLASS:+-C cmake.define.IVK_CUTLASS="$IVK_CUTLASS"}
else
    IVK_CUDA=1 "$python" -m pip install '.[test]'
fi
"$python" -m internvl_kernels.cli info || true

echo "== tests on the $where GPU"
if [ $where = real ]; then
    "$python" -m pytest -q --cuda=real tests/kernels tests/models/test_vision*_cuda.py
    "$python" -m pytest -q --cuda=real -m rows tests/vgpu
else
    "$python" -m pytest -q --cuda=virtual tests/kernels/test_*_cuda.py tests/models/test_vision*_cuda.py
fi

echo "== benches"
if [ $where = real ]; then
    "$python" bench/gpu.py --out "$out"
else
    "$python" bench/gpu.py --virtual
fi
