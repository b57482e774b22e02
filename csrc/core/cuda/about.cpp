#include "core/cuda/about.h"

namespace ivk {
const char* built_with() { return IVK_CUDA_COMPILER; }
const char* built_architectures() { return IVK_CUDA_ARCHS; }
}  // namespace ivk
