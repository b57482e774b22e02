#!/usr/bin/env bash
# Builds the CUDA part, runs its tests on the GPU of this machine, then times it beside its peers and writes a dated report.
#
# bench/gpu.sh [--offline] [--virtual] [--out FOLDER]
#   --offline   no network: build with what is installed (CMake, ninja, scikit-build-core, pybind11, nvcc 13). IVK_NVCC names the
#               compiler and IVK_CUTLASS the folder of CUTLASS's headers where the packages of build_tools/ivk_cuda.py are missing.
#   --virtual   everything but the timings, on the virtual GPU of tests/vgpu; small shapes
#   --out       where the report goes (default: bench/results of the checkout)
# PYTHON names the interpreter, of an environment of its own: the package is installed there.
set -euo pipefail
offline= where=real out=
while [ $# -gt 0 ]; do
    case $1 in
        --offline) offline=1 ;;
        --virtual) where=virtual ;;
        --out)
            [ $# -gt 1 ] || { echo "gpu.sh: --out takes a folder" >&2 && exit 2; }
            mkdir -p "$2"  # now, not after the tests; from where the caller stands
            out=$(cd "$2" && pwd)
            shift
            ;;
        *) echo "gpu.sh: $1; allowed: --offline, --virtual, --out FOLDER" >&2 && exit 2 ;;
    esac
    shift
done
cd "$(dirname "$0")/.."
out=${out:-$PWD/bench/results}
python=${PYTHON:-$(command -v python || echo python3)}

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
