// Type names and sizes, which operand an instruction writes, and how a parse error reads.
#include <algorithm>
#include <iterator>

#include "ptx/ir.h"

namespace vgpu {
namespace {

struct TypeRow {
    Type type;
    const char* name;
    int size;
};

constexpr TypeRow kTypes[] = {
    {Type::none, "none", 0},     {Type::pred, "pred", 4},     {Type::b8, "b8", 1},         {Type::b16, "b16", 2},
    {Type::b32, "b32", 4},       {Type::b64, "b64", 8},       {Type::b128, "b128", 16},    {Type::u8, "u8", 1},
    {Type::u16, "u16", 2},       {Type::u32, "u32", 4},       {Type::u64, "u64", 8},       {Type::s8, "s8", 1},
    {Type::s16, "s16", 2},       {Type::s32, "s32", 4},       {Type::s64, "s64", 8},       {Type::f16, "f16", 2},
    {Type::f16x2, "f16x2", 4},   {Type::bf16, "bf16", 2},     {Type::bf16x2, "bf16x2", 4}, {Type::tf32, "tf32", 4},
    {Type::f32, "f32", 4},       {Type::f64, "f64", 8},       {Type::e4m3, "e4m3", 1},     {Type::e5m2, "e5m2", 1},
    {Type::e4m3x2, "e4m3x2", 2}, {Type::e5m2x2, "e5m2x2", 2},
};

std::string message(std::string_view module, uint32_t line, std::string_view problem, std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
    std::string shown;
    for (char c : text.substr(0, 160)) shown += c >= 32 && c < 127 ? c : '?';  // hostile bytes stay out of terminals
    if (text.size() > 160) shown += " ...";
    return std::string(module) + ":" + std::to_string(line) + ": " + std::string(problem) + ": \"" + shown + "\"";
}

}  // namespace

static_assert(std::size(kTypes) == size_t(Type::e5m2x2) + 1, "one row a type, in the order of the enumeration");

int size_of(Type type) { return kTypes[size_t(type)].size; }

const char* name_of(Type type) { return kTypes[size_t(type)].name; }

Type type_from_name(std::string_view name) {
    for (const TypeRow& row : kTypes)
        if (row.type != Type::none && name == row.name) return row.type;
    return Type::none;
}

ParseError::ParseError(std::string_view module, uint32_t line, std::string_view problem, std::string_view text)
    : std::runtime_error(message(module, line, problem, text)), line(line) {}

int destination_count(const Instruction& instruction) {
    if (instruction.operands.empty() || instruction.parts.empty()) return 0;
    const std::string& first = instruction.parts[0];
    const Operand& operand = instruction.operands[0];
    if (first == "call") return operand.elements.empty() ? 0 : 1;
    if (operand.kind != OperandKind::reg && operand.kind != OperandKind::vector && operand.kind != OperandKind::sink)
        return 0;  // st, red, cp.async, mbarrier.init, bra, …: an address, a number or a label stands first
    if (first == "bar" || first == "barrier") {  // bar.sync %r1; but bar.red.popc.u32 %r1, …
        const auto& parts = instruction.parts;
        return std::find(parts.begin(), parts.end(), "red") != parts.end() ? 1 : 0;
    }
    static const char* const kNone[] = {"bra", "brx", "nanosleep", "setmaxnreg", "stackrestore"};
    return std::none_of(std::begin(kNone), std::end(kNone), [&](const char* name) { return first == name; }) ? 1 : 0;
}

}  // namespace vgpu
