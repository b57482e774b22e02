// Run-time values to compile-time ones, for launchers.
#pragma once

#include <type_traits>
#include <utility>

#include "core/tensor.h"

namespace ivk {

template <typename F>
decltype(auto) with_bool(bool value, F&& f) {
    return value ? std::forward<F>(f)(std::true_type{}) : std::forward<F>(f)(std::false_type{});
}

template <typename T>
struct Tag {
    using type = T;
};

// f(Tag<float | bf16 | f16>{}); contracts have refused every other dtype.
template <typename Bf16, typename F16, typename F>
decltype(auto) with_float(DType dtype, F&& f) {
    if (dtype == DType::f32) return std::forward<F>(f)(Tag<float>{});
    return dtype == DType::bf16 ? std::forward<F>(f)(Tag<Bf16>{}) : std::forward<F>(f)(Tag<F16>{});
}

// Whether 16-byte accesses may be used on all of these: addresses (null passes) and byte counts.
template <typename... Addresses>
bool aligned_addresses(Addresses... addresses) {
    return ((reinterpret_cast<uintptr_t>(addresses) % 16 == 0) && ...);
}
template <typename... Bytes>
bool aligned_bytes(Bytes... bytes) {
    return ((bytes % 16 == 0) && ...);
}

}  // namespace ivk
