#include "core/isa.h"

#include <atomic>
#include <cstdlib>

#include "core/check.h"

namespace ivk {
namespace {

bool supported(Isa isa) {
#if defined(__x86_64__) && !defined(IVK_BASE_ONLY)
    __builtin_cpu_init();
    if (isa == Isa::v4)
        return supported(Isa::v3) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    if (isa == Isa::v3)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
               __builtin_cpu_supports("f16c");
#endif
    return isa == Isa::base;
}

Isa best() {
    if (const char* forced = std::getenv("IVK_ISA")) {
        for (Isa isa : {Isa::base, Isa::v3, Isa::v4})
            if (isa_name(isa) == forced && supported(isa)) return isa;
    }
    return supported(Isa::v4) ? Isa::v4 : supported(Isa::v3) ? Isa::v3 : Isa::base;
}

std::atomic<int>& chosen() {
    static std::atomic<int> isa{static_cast<int>(best())};
    return isa;
}

}  // namespace

Isa current_isa() { return static_cast<Isa>(chosen().load(std::memory_order_relaxed)); }

std::string isa_name(Isa isa) { return isa == Isa::v4 ? "v4" : isa == Isa::v3 ? "v3" : "base"; }

std::vector<std::string> built_isas() {
#if defined(__x86_64__) && !defined(IVK_BASE_ONLY)
    return {isa_name(Isa::base), isa_name(Isa::v3), isa_name(Isa::v4)};
#else
    return {isa_name(Isa::base)};
#endif
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (Isa isa : {Isa::base, Isa::v3, Isa::v4})
        if (supported(isa)) names.push_back(isa_name(isa));
    return names;
}

bool has_bf16_products() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

void set_isa(const std::string& name) {
    for (Isa isa : {Isa::base, Isa::v3, Isa::v4}) {
        if (isa_name(isa) == name && supported(isa)) {
            chosen().store(static_cast<int>(isa));
            return;
        }
    }
    std::string allowed;
    for (const std::string& known : available_isas()) allowed += " " + known;
    require(false, "isa: '", name, "' is not available here; allowed:", allowed);
}

}  // namespace ivk
