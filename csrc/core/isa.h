// Run-time choice of instruction set. Every *_cpu.cpp is compiled once per level into namespace ivk::IVK_ISA and
// exports a table of functions; IVK_SELECT(table) picks the best level this machine has (or the one forced by IVK_ISA /
// set_isa). Objects are linked lowest level first, so a template shared by several levels always resolves to the
// baseline's copy.
#pragma once

#include <string>
#include <vector>

namespace ivk {

enum class Isa : int { base = 0, v3 = 1, v4 = 2 };  // x86-64 psABI levels; elsewhere only base

Isa current_isa();
std::vector<std::string> built_isas();      // inside this extension, lowest first
std::vector<std::string> available_isas();  // of those, what this machine runs
std::string isa_name(Isa isa);
bool has_bf16_products();               // AVX512_BF16, which processors with AMX have too
void set_isa(const std::string& name);  // throws UnsupportedError when this machine or build lacks it

template <typename Table>
const Table& pick_isa(const Table& base) {
    return base;
}

template <typename Table>
const Table& pick_isa(const Table& base, const Table& v3, const Table& v4) {
    const Isa isa = current_isa();
    return isa == Isa::v4 ? v4 : isa == Isa::v3 ? v3 : base;
}

}  // namespace ivk

// IVK_BASE_ONLY: a build with the baseline level alone (CMake: -DIVK_ISAS=isa_base).
#if defined(__x86_64__) && !defined(IVK_BASE_ONLY)
#define IVK_DECLARE_TABLE(Type, table) \
    namespace isa_base {               \
    extern const Type table;           \
    }                                  \
    namespace isa_v3 {                 \
    extern const Type table;           \
    }                                  \
    namespace isa_v4 {                 \
    extern const Type table;           \
    }
#define IVK_SELECT(table) ::ivk::pick_isa(isa_base::table, isa_v3::table, isa_v4::table)
#else
#define IVK_DECLARE_TABLE(Type, table) \
    namespace isa_base {               \
    extern const Type table;           \
    }
#define IVK_SELECT(table) ::ivk::pick_isa(isa_base::table)
#endif
