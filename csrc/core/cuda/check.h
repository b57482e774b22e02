// Every call of the CUDA runtime goes through cuda_check: an error throws, with the call, its values, code and name.
#pragma once

#include <cuda_runtime_api.h>

#include <sstream>

#include "core/check.h"

namespace ivk {

[[noreturn]] void fail_cuda(cudaError_t error, const std::string& what);

// cuda_check(cudaMalloc(&p, bytes), "cudaMalloc of ", bytes, " bytes")
template <typename... Parts>
void cuda_check(cudaError_t error, const Parts&... what) {
    if (error == cudaSuccess) return;
    std::ostringstream text;
    (text << ... << what);
    fail_cuda(error, text.str());
}

}  // namespace ivk
