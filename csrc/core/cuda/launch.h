// The one function that launches kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "core/stream.h"

namespace ivk {

struct Launch {
    const char* name;  // in errors and in the debug print
    dim3 grid, block;
    size_t shared = 0;  // dynamic shared memory, bytes
    Stream stream = nullptr;
};

// Opts in to large shared memory. Throws BackendError with the launch printed whole.
// IVK_DEBUG=1 prints every launch to stderr and waits for it, so that a failure names its kernel.
void launch_kernel(const Launch& launch, const void* kernel, void** arguments);

namespace detail {
template <typename T>
struct Same {
    using type = T;
};
}  // namespace detail

template <typename... Parameters>
void launch(const Launch& how, void (*kernel)(Parameters...), typename detail::Same<Parameters>::type... arguments) {
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
    launch_kernel(how, reinterpret_cast<const void*>(kernel), pointers);
}

}  // namespace ivk
