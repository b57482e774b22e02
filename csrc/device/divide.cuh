// Division by a number known at launch, as one multiplication: made on the host, used by every thread.
#pragma once

#include <cstdint>

namespace ivk::device {

// Exact for dividends and divisors below 2^31.
struct Divider {
    uint32_t divisor = 1, factor = 0, shift = 0;

    Divider() = default;
    explicit Divider(uint32_t by) : divisor(by) {
        if (by == 1) return;
        while ((uint64_t{1} << shift) < by) ++shift;
        factor = static_cast<uint32_t>(((uint64_t{1} << (31 + shift)) + by - 1) / by);
        --shift;
    }
    __device__ uint32_t quotient(uint32_t value) const {
        return divisor == 1 ? value : __umulhi(value, factor) >> shift;
    }
};

}  // namespace ivk::device
