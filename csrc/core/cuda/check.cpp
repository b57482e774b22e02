#include "core/cuda/check.h"

namespace ivk {

void fail_cuda(cudaError_t error, const std::string& what) {
    (void)cudaGetLastError();  // an error that can be cleared must not be reported again by the next call
    std::ostringstream text;
    text << what << ": " << cudaGetErrorName(error) << " (" << static_cast<int>(error)
         << "): " << cudaGetErrorString(error);
    if (error == cudaErrorInsufficientDriver)
        text << "; the NVIDIA driver is missing or older than 580, which CUDA 13 needs";
    throw BackendError(text.str());
}

}  // namespace ivk
