// Lane loops: a scalar function of typed operands becomes a handler over rows. The compiler vectorises the full-mask
// loop.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "exec/warp.h"

namespace vgpu {

template <class T>
using Cell = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;  // of a row that holds T

template <class T>
inline T unpack(Cell<T> bits) {
    T v;
    if constexpr (sizeof(T) < 4) {
        using U = std::conditional_t<sizeof(T) == 1, uint8_t, uint16_t>;
        U u = U(bits);
        std::memcpy(&v, &u, sizeof(T));
    } else {
        std::memcpy(&v, &bits, sizeof(T));
    }
    return v;
}
template <class T>
inline Cell<T> pack(T v) {
    if constexpr (sizeof(T) < 4) {
        std::conditional_t<sizeof(T) == 1, uint8_t, uint16_t> u;
        std::memcpy(&u, &v, sizeof(T));
        return u;  // upper bits of a narrow register are zero
    } else {
        Cell<T> bits;
        std::memcpy(&bits, &v, sizeof(T));
        return bits;
    }
}

template <class T>
inline void blend(T* d, const T* value, uint32_t mask) {
    for (int i = 0; i < 32; ++i) d[i] = (mask >> i & 1) ? value[i] : d[i];
}

// A row made elsewhere goes to the lanes of the mask.
template <class T>
inline void store_row(T* d, const T* value, uint32_t mask) {
    if (mask == ~0u)
        std::memcpy(d, value, 32 * sizeof(T));
    else
        blend(d, value, mask);
}

template <auto F>
struct LanesOf;

template <class D, class... A, D (*F)(A...)>
struct LanesOf<F> {
    static void go(Warp& w, const Op& o, uint32_t mask) {
        const uint32_t sources[] = {o.a, o.b, o.c, o.e};
        go(w, o.d, sources, mask, std::index_sequence_for<A...>());
    }
    template <size_t... I>
    static void go(Warp& w, uint32_t to, const uint32_t* sources, uint32_t mask, std::index_sequence<I...>) {
        loop(row<Cell<D>>(w, to), mask, row<Cell<A>>(w, sources[I])...);
    }
    static void loop(Cell<D>* d, uint32_t mask, const Cell<A>*... s) {
        if (mask == ~0u) {
#pragma GCC ivdep
            for (int i = 0; i < 32; ++i) d[i] = pack<D>(F(unpack<A>(s[i])...));
        } else {
            alignas(32) Cell<D> t[32];
            for (int i = 0; i < 32; ++i) t[i] = pack<D>(F(unpack<A>(s[i])...));
            blend(d, t, mask);
        }
    }
};

// Handler for a scalar function: lanes<add_f32>.
template <auto F>
Next lanes(Warp& w, const Op& o, uint32_t mask) {
    LanesOf<F>::go(w, o, mask);
    return Next::step;
}

// SSE control word while a block of lanes runs: PTX rounding modes and .ftz are the machine's own (RC, FTZ and DAZ
// bits).
enum Round : uint8_t { round_nearest = 0, round_down = 1, round_up = 2, round_zero = 3 };
class FloatMode {
  public:
    explicit FloatMode(uint32_t round, bool ftz) {
        asm volatile("stmxcsr %0" : "=m"(old_)::"memory");
        uint32_t now = 0x1F80u | round << 13 | (ftz ? 0x8040u : 0u);
        asm volatile("ldmxcsr %0" ::"m"(now) : "memory");
    }
    ~FloatMode() { asm volatile("ldmxcsr %0" ::"m"(old_) : "memory"); }

  private:
    uint32_t old_;
};
// Op::mode of float instructions: bits 0-1 Round, bit 2 ftz, bit 3 sat.
constexpr uint8_t kModeFtz = 4, kModeSat = 8;

// The same in the rounding mode of op.mode; float rows are clamped to [0, 1] (NaN to 0) for .sat.
template <auto F, class D>
Next lanes_mode(Warp& w, const Op& o, uint32_t mask) {
    FloatMode mode(o.mode & 3, o.mode & kModeFtz);
    LanesOf<F>::go(w, o, mask);
    if (o.mode & kModeSat) {
        D* d = row<D>(w, o.d);
        for (int i = 0; i < 32; ++i)
            if (mask >> i & 1) d[i] = d[i] > D(0) ? (d[i] < D(1) ? d[i] : D(1)) : D(0);
    }
    return Next::step;
}

}  // namespace vgpu
