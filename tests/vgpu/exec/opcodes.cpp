// The one opcode table.
#include <map>

#include "exec/classes.h"

namespace vgpu {
namespace {

Type last_type(const Decoder& d) {
    Type t = Type::none;
    for (size_t i = 0; !d.peek(i).empty(); ++i) {
        Type x = type_from_name(d.peek(i));
        if (x != Type::none) t = x;
    }
    return t;
}
// Opcodes that integers, floats and halves share.
template <DecodeFunction Int, DecodeFunction Float, DecodeFunction Half>
void by_type(Decoder& d) {
    Type t = last_type(d);
    if (is_half_type(t)) {
        d.op.cls = Class::half;
        return Half(d);
    }
    if (t == Type::f32 || t == Type::f64) {
        d.op.cls = Class::floating;
        return Float(d);
    }
    d.op.cls = Class::integer;
    Int(d);
}
void none(Decoder& d) { d.fail("type"); }

const std::map<std::string_view, OpcodeRow>& table() {
    constexpr auto kAdd = by_type<decode_integer_add, decode_float, decode_half>;
    constexpr auto kMul = by_type<decode_integer_mul, decode_float, decode_half>;
    constexpr auto kExtreme = by_type<decode_integer_unary, decode_float_extreme, decode_half>;
    constexpr auto kSign = by_type<decode_integer_unary, decode_float_sign, decode_half>;
    constexpr auto kDivide = by_type<decode_integer_unary, decode_float, none>;
    constexpr auto kFloat = by_type<none, decode_float, decode_half>;
    static const std::map<std::string_view, OpcodeRow> rows = {
        {"add", {Class::other, kAdd}},
        {"sub", {Class::other, kAdd}},
        {"mul", {Class::other, kMul}},
        {"mad", {Class::other, kMul}},
        {"fma", {Class::other, kFloat}},
        {"min", {Class::other, kExtreme}},
        {"max", {Class::other, kExtreme}},
        {"abs", {Class::other, kSign}},
        {"neg", {Class::other, kSign}},
        {"div", {Class::other, kDivide}},
        {"ex2", {Class::other, kFloat}},
        {"tanh", {Class::other, kFloat}},
        {"rcp", {Class::floating, decode_float}},
        {"sqrt", {Class::floating, decode_float}},
        {"rsqrt", {Class::floating, decode_float}},
        {"lg2", {Class::floating, decode_float}},
        {"sin", {Class::floating, decode_float}},
        {"cos", {Class::floating, decode_float}},
        {"copysign", {Class::floating, decode_copysign}},
        {"testp", {Class::floating, decode_testp}},
        {"addc", {Class::integer, decode_integer_add}},
        {"subc", {Class::integer, decode_integer_add}},
        {"madc", {Class::integer, decode_integer_mul}},
        {"mul24", {Class::integer, decode_integer_mul}},
        {"mad24", {Class::integer, decode_integer_mul}},
        {"rem", {Class::integer, decode_integer_unary}},
        {"sad", {Class::integer, decode_integer_unary}},
        {"cnot", {Class::integer, decode_integer_unary}},
        {"popc", {Class::integer, decode_integer_unary}},
        {"clz", {Class::integer, decode_integer_unary}},
        {"brev", {Class::integer, decode_integer_unary}},
        {"bfind", {Class::integer, decode_integer_unary}},
        {"and", {Class::integer, decode_logic}},
        {"or", {Class::integer, decode_logic}},
        {"xor", {Class::integer, decode_logic}},
        {"not", {Class::integer, decode_logic}},
        {"shl", {Class::integer, decode_shift}},
        {"shr", {Class::integer, decode_shift}},
        {"shf", {Class::integer, decode_shift}},
        {"lop3", {Class::integer, decode_lop3}},
        {"bfe", {Class::integer, decode_bitfield}},
        {"bfi", {Class::integer, decode_bitfield}},
        {"bmsk", {Class::integer, decode_bitfield}},
        {"szext", {Class::integer, decode_bitfield}},
        {"fns", {Class::integer, decode_bitfield}},
        {"dp4a", {Class::integer, decode_dot}},
        {"dp2a", {Class::integer, decode_dot}},
        {"cvt", {Class::convert, decode_cvt}},
        {"setp", {Class::compare, decode_setp}},
        {"set", {Class::compare, decode_set}},
        {"selp", {Class::compare, decode_selp}},
        {"slct", {Class::compare, decode_slct}},
        {"mov", {Class::move, decode_mov}},
        {"prmt", {Class::move, decode_prmt}},
        {"cvta", {Class::move, decode_cvta}},
        {"isspacep", {Class::move, decode_isspacep}},
        {"ld", {Class::memory, decode_ld}},
        {"ldu", {Class::memory, decode_ld}},
        {"st", {Class::memory, decode_st}},
        {"prefetch", {Class::memory, decode_prefetch}},
        {"prefetchu", {Class::memory, decode_prefetch}},
        {"applypriority", {Class::memory, decode_prefetch}},
        {"discard", {Class::memory, decode_prefetch}},
        {"createpolicy", {Class::other, decode_createpolicy}},
        {"atom", {Class::atomic, decode_atom}},
        {"red", {Class::atomic, decode_atom}},
        {"membar", {Class::atomic, decode_fence}},
        {"fence", {Class::atomic, decode_fence}},
        {"shfl", {Class::collective, decode_shfl}},
        {"vote", {Class::collective, decode_vote}},
        {"match", {Class::collective, decode_match}},
        {"redux", {Class::collective, decode_redux}},
        {"activemask", {Class::collective, decode_activemask}},
        {"elect", {Class::collective, decode_elect}},
        {"bar", {Class::barrier, decode_barrier}},
        {"barrier", {Class::barrier, decode_barrier}},
        {"cp", {Class::async_copy, decode_cp}},
        {"ldmatrix", {Class::memory, decode_ldmatrix}},
        {"stmatrix", {Class::memory, decode_ldmatrix}},
        {"movmatrix", {Class::collective, decode_movmatrix}},
        {"mma", {Class::mma, decode_mma}},
        {"bra", {Class::control, decode_bra}},
        {"brx", {Class::control, decode_brx}},
        {"call", {Class::control, decode_call}},
        {"ret", {Class::control, decode_ret}},
        {"exit", {Class::control, decode_exit}},
        {"trap", {Class::control, decode_trap}},
        {"brkpt", {Class::control, decode_trap}},
        {"nanosleep", {Class::control, decode_nanosleep}},
        {"pmevent", {Class::control, decode_nop}},
        {"griddepcontrol", {Class::control, decode_nop}},
    };
    return rows;
}

}  // namespace

const OpcodeRow* find_opcode(std::string_view name) {
    auto it = table().find(name);
    return it == table().end() ? nullptr : &it->second;
}
std::vector<std::string> opcode_names() {
    std::vector<std::string> names;
    for (const auto& row : table()) names.emplace_back(row.first);
    return names;
}
const char* name_of(Class c) {
    static const char* names[] = {"integer", "float",      "half",    "convert",    "compare", "move",    "memory",
                                  "atomic",  "collective", "barrier", "async copy", "mma",     "control", "other"};
    return names[int(c)];
}

}  // namespace vgpu
