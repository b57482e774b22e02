// Which modifiers and types go together: the legal forms of every opcode of the one table (opcodes.cpp). What has no
// row here is refused before it is decoded, so that the decode functions see forms that exist. ptxas is the judge
// (tests/test_forms.py): it takes modifiers in any order, types in theirs, and so does this table.
#include <algorithm>
#include <map>

#include "exec/decode.h"

namespace vgpu {
namespace {

struct FormRow {
    const char* opcodes;
    const char* modifiers;  // a|b: one of them; a? or a|b?: none as well; ^a|b: right behind the opcode and other such
    const char* types;      // a|b at each place
    int sm = 0;             // the least part that has the form
};

#define INT "u16|s16|u32|s32|u64|s64"
#define INT8 "u8|s8|" INT
#define WIDE "u32|s32|u64|s64"
#define BITS "b16|b32|b64"
#define HALF "f16|f16x2"
#define BFLOAT "bf16|bf16x2"
#define ROUND "rn|rz|rm|rp"
#define INTEGRAL "rni|rzi|rmi|rpi"
#define JOIN "and|or|xor?"
#define ORDERED "eq|ne|lt|le|gt|ge"
#define FLOATS ORDERED "|equ|neu|ltu|leu|gtu|geu|num|nan"
#define SPACE "global|shared|shared::cta?"
#define NEAR "shared|shared::cta|local"
#define SCOPE "cta|cluster|gpu|sys"
#define ATOM "relaxed|acquire|release|acq_rel? " SCOPE "? "
#define RED "relaxed|release? " SCOPE "? "
#define HINT " L2::cache_hint?"
#define MATRIX "sync aligned m8n8 x1|x2|x4 trans? shared|shared::cta?"
#define MMA "sync aligned row col "
#define BYTES32 "b8|u8|s8|b16|u16|s16|b32|u32|s32|f32"
#define BYTES64 "b64|u64|s64|f64"
#define EVICT "L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate?"
#define LEVELS EVICT " L2::64B|L2::128B|L2::256B?" HINT
#define PRIMARY \
    " L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged L2::evict_first|L2::evict_unchanged?"

#define ATOMS(operation, types, sm) \
    {"atom", ATOM "global? " operation HINT, types, sm}, { "atom", ATOM "shared|shared::cta " operation, types, sm }
#define REDS(operation, types, sm) \
    {"red", RED "global? " operation HINT, types, sm}, { "red", RED "shared|shared::cta " operation, types, sm }

const FormRow kForms[] = {
    {"add sub mul", "rn? ftz? sat?", HALF},
    {"add sub mul", "rn?", BFLOAT, 90},
    {"add sub mul", ROUND "? ftz? sat?", "f32"},
    {"add sub mul", ROUND "?", "f64"},
    {"add sub", "", INT},
    {"add sub", "sat", "s32"},
    {"add sub", "cc", WIDE},
    {"add", "", "u16x2|s16x2", 90},
    {"addc subc", "cc?", WIDE},
    {"mul mad", "^lo|hi", INT},
    {"mul mad", "^wide", "u16|s16|u32|s32"},
    {"mad", "^hi sat", "s32"},
    {"mad", "^lo|hi cc", WIDE},
    {"madc", "^lo|hi cc?", WIDE},
    {"mul24 mad24", "^lo|hi", "u32|s32"},
    {"mad24", "^hi sat", "s32"},
    {"fma", "rn ftz? sat?", HALF},
    {"fma", "rn ftz? relu", HALF},
    {"fma", "rn relu?", BFLOAT},
    {"fma mad", ROUND " ftz? sat?", "f32"},
    {"fma mad", ROUND, "f64"},
    {"div rem", "", INT},
    {"div", "^full ftz?", "f32"},
    {"div rcp sqrt", "approx|" ROUND " ftz?", "f32"},
    {"div rcp sqrt", ROUND, "f64"},
    {"rcp", ROUND " ftz", "f64"},  // the ISA does not tell of this .ftz, and ptxas makes the same code with and without
    {"rcp", "approx ftz", "f64"},
    {"rsqrt", "approx ftz?", "f32|f64"},
    {"lg2 ex2 sin cos", "approx ftz?", "f32"},
    {"ex2 tanh", "approx", HALF},
    {"ex2", "approx ftz", BFLOAT, 90},
    {"tanh", "approx", "f32"},
    {"tanh", "approx", BFLOAT, 90},
    {"min max", "", INT "|f64"},
    {"min max", "relu", "s32", 90},
    {"min max", "", "u16x2|s16x2", 90},
    {"min max", "ftz? NaN?", HALF "|f32"},
    {"min max", "NaN?", BFLOAT},
    {"min max", "ftz? NaN? xorsign abs", HALF "|f32", 86},
    {"min max", "NaN? xorsign abs", BFLOAT, 86},
    {"abs neg", "", "s16|s32|s64|f32|f64|" HALF "|" BFLOAT},
    {"abs neg", "ftz", HALF "|f32"},
    {"copysign", "", "f32|f64"},
    {"testp", "finite|infinite|number|notanumber|normal|subnormal", "f32|f64"},

    {"sad", "", INT},
    {"cnot shl shr", "", BITS},
    {"shr", "", INT},
    {"and or xor not", "", "pred|" BITS},
    {"popc clz brev bfi", "", "b32|b64"},
    {"bfind", "shiftamt?", WIDE},
    {"bfe", "", WIDE},
    {"shf", "^l|r wrap|clamp", "b32"},
    {"lop3", "and|or?", "b32"},
    {"bmsk", "wrap|clamp", "b32"},
    {"szext", "wrap|clamp", "u32|s32"},
    {"fns", "", "b32"},
    {"dp4a", "", "u32|s32 u32|s32"},
    {"dp2a", "lo|hi", "u32|s32 u32|s32"},

    {"cvt", "", INT8 " " INT8},
    {"cvt", "sat", "u8 s8|" INT},
    {"cvt", "sat", "s8 u8|" INT},
    {"cvt", "sat", "u16 s8|s16|" WIDE},
    {"cvt", "sat", "s16 u16|" WIDE},
    {"cvt", "sat", "u32 s8|s16|s32|s64|u64"},
    {"cvt", "sat", "s32 u32|u64|s64"},
    {"cvt", "sat", "u64 s8|s16|s32|s64"},
    {"cvt", "sat", "s64 u64"},
    {"cvt", INTEGRAL " sat?", INT8 " f16|f64"},
    {"cvt", INTEGRAL " ftz? sat?", INT8 " f32"},
    {"cvt", INTEGRAL, INT " bf16", 90},
    {"cvt", ROUND " sat?", "f16|f64 " INT8},
    {"cvt", ROUND " ftz? sat?", "f32 " INT8},
    {"cvt", ROUND, "bf16 " INT, 90},
    {"cvt", INTEGRAL "? sat?", "f16 f16"},
    {"cvt", INTEGRAL "? ftz? sat?", "f32 f32"},
    {"cvt", INTEGRAL "? sat?", "f64 f64"},
    {"cvt", INTEGRAL "?", "bf16 bf16", 90},
    {"cvt", "ftz? sat?", "f32 f16"},
    {"cvt", "ftz? sat?", "f64 f32"},
    {"cvt", "sat?", "f64 f16"},
    {"cvt", "", "f64 bf16", 90},
    {"cvt", ROUND " ftz? sat?", "f16 f32"},
    {"cvt", ROUND " sat?", "f16 f64"},
    {"cvt", ROUND " ftz? sat?", "f32 f64"},
    {"cvt", ROUND " ftz?", "bf16 f32"},
    {"cvt", ROUND, "bf16 f16|f64", 90},
    {"cvt", ROUND, "f16 bf16", 90},
    {"cvt", ROUND "?", "f32 bf16"},  // exact, so that the rounding ptxas takes does nothing
    {"cvt", "ftz", "f32 bf16", 90},
    {"cvt", "rn|rz relu? satfinite?", "f16|bf16|f16x2|bf16x2 f32"},
    {"cvt", "rna satfinite?", "tf32 f32"},
    {"cvt", "rn|rz relu?", "tf32 f32", 90},
    {"cvt", "rn satfinite relu?", "e4m3x2|e5m2x2 f32|f16x2", 89},
    {"cvt", "rn relu?", "f16x2 e4m3x2|e5m2x2", 89},

    {"setp", "eq|ne " JOIN, BITS},
    {"setp", ORDERED " " JOIN, INT},
    {"setp", "lo|ls|hi|hs " JOIN, "u16|u32|u64"},
    {"setp", FLOATS " " JOIN " ftz?", HALF "|f32"},
    {"setp", FLOATS " " JOIN, "f64"},
    {"setp", FLOATS " " JOIN, BFLOAT, 90},
    {"set", "eq|ne " JOIN, "u32|s32|f16|f32 " BITS},
    {"set", ORDERED " " JOIN, "u32|s32|f16|f32 " INT},
    {"set", "lo|ls|hi|hs " JOIN, "u32|s32|f16|f32 u16|u32|u64"},
    {"set", FLOATS " " JOIN " ftz?", "u32|s32|f16|f32 f32"},
    {"set", FLOATS " " JOIN, "u32|s32|f16|f32 f64"},
    {"set", FLOATS " " JOIN " ftz?", "u16|s16|u32|s32|f16 f16"},
    {"set", FLOATS " " JOIN " ftz?", "u32|s32|f16x2 f16x2"},
    {"set", "eq|ne " JOIN, "bf16 " BITS, 90},
    {"set", ORDERED " " JOIN, "bf16 " INT, 90},
    {"set", "lo|ls|hi|hs " JOIN, "bf16 u16|u32|u64", 90},
    {"set", FLOATS " " JOIN, "bf16 f16|f32|f64", 90},
    {"set", FLOATS " " JOIN, "u16|s16|u32|s32|bf16 bf16", 90},
    {"set", FLOATS " " JOIN, "u32|s32|bf16x2 bf16x2", 90},
    {"selp", "", BITS "|" INT "|f32|f64"},
    {"slct", "", BITS "|" INT "|f32|f64 s32"},
    {"slct", "ftz?", BITS "|" INT "|f32|f64 f32"},

    {"mov", "", "pred|" BITS "|" INT "|f32|f64"},
    {"prmt", "f4e|b4e|rc8|ecl|ecr|rc16?", "b32"},
    {"cvta", "^to? global|shared|shared::cta|local|const|param|param::entry", "u64"},
    {"isspacep", "global|shared|shared::cta|local|const|param|param::entry", ""},

    {"ld", "weak? global? ca|cg|cs|lu|cv|" LEVELS " v2|v4?", BYTES32},
    {"ld", "weak? global? ca|cg|cs|lu|cv|" LEVELS " v2?", BYTES64},
    {"ld", "weak? " NEAR "|param|param::entry|param::func|const ca|cg|cs|lu|cv? v2|v4?", BYTES32},
    {"ld", "weak? " NEAR "|param|param::entry|param::func|const ca|cg|cs|lu|cv? v2?", BYTES64},
    {"ld", "global nc ca|cg|cs|" LEVELS " v2|v4?", BYTES32},
    {"ld", "global nc ca|cg|cs|" LEVELS " v2?", BYTES64},
    {"ld", "volatile global? L2::64B|L2::128B|L2::256B? v2|v4?", BYTES32},
    {"ld", "volatile global? L2::64B|L2::128B|L2::256B? v2?", BYTES64},
    {"ld", "volatile shared|shared::cta v2|v4?", BYTES32},
    {"ld", "volatile shared|shared::cta v2?", BYTES64},
    {"ld", "relaxed|acquire " SCOPE " global? " LEVELS " v2|v4?", BYTES32},
    {"ld", "relaxed|acquire " SCOPE " global? " LEVELS " v2?", BYTES64},
    {"ld", "relaxed|acquire " SCOPE " shared|shared::cta v2|v4?", BYTES32},
    {"ld", "relaxed|acquire " SCOPE " shared|shared::cta v2?", BYTES64},
    {"ld", "mmio relaxed sys global?", BYTES32 "|" BYTES64},
    {"ldu", "global? v2|v4?", BYTES32},
    {"ldu", "global? v2?", BYTES64},
    {"st", "weak? global? wb|cg|cs|wt|" EVICT HINT " v2|v4?", BYTES32},
    {"st", "weak? global? wb|cg|cs|wt|" EVICT HINT " v2?", BYTES64},
    {"st", "weak? " NEAR "|param|param::func wb|cg|cs|wt? v2|v4?", BYTES32},
    {"st", "weak? " NEAR "|param|param::func wb|cg|cs|wt? v2?", BYTES64},
    {"st", "volatile " SPACE " v2|v4?", BYTES32},
    {"st", "volatile " SPACE " v2?", BYTES64},
    {"st", "relaxed|release " SCOPE " global? " EVICT HINT " v2|v4?", BYTES32},
    {"st", "relaxed|release " SCOPE " global? " EVICT HINT " v2?", BYTES64},
    {"st", "relaxed|release " SCOPE " shared|shared::cta v2|v4?", BYTES32},
    {"st", "relaxed|release " SCOPE " shared|shared::cta v2?", BYTES64},
    {"st", "mmio relaxed sys global?", BYTES32 "|" BYTES64},
    {"prefetch", "global|local? L1|L2", ""},
    {"prefetch", "global? L2::evict_last|L2::evict_normal", ""},
    {"prefetchu", "L1", ""},
    {"applypriority", "global? L2::evict_normal", ""},
    {"discard", "global? L2", ""},
    {"createpolicy", "^fractional" PRIMARY, "b64"},
    {"createpolicy", "^range global?" PRIMARY, "b64"},
    {"createpolicy", "^cvt L2", "b64"},

    ATOMS("and|or|xor|exch", "b32|b64", 0),
    ATOMS("cas", BITS, 0),
    ATOMS("add", "u32|s32|u64|f32|f64", 0),
    ATOMS("min|max", WIDE, 0),
    ATOMS("inc|dec", "u32", 0),
    ATOMS("add noftz", HALF, 0),
    ATOMS("add noftz", BFLOAT, 90),
    {"atom", ATOM "global? add v2|v4" HINT, "f32", 90},
    {"atom", ATOM "global? add|min|max noftz v2|v4" HINT, HALF "|" BFLOAT, 90},
    {"atom", ATOM "global? add|min|max noftz v8" HINT, "f16|bf16", 90},
    REDS("and|or|xor", "b32|b64", 0),
    REDS("add", "u32|s32|u64|f32|f64", 0),
    REDS("min|max", WIDE, 0),
    REDS("inc|dec", "u32", 0),
    REDS("add noftz", HALF, 0),
    REDS("add noftz", BFLOAT, 90),
    {"red", RED "global? add v2|v4" HINT, "f32", 90},
    {"red", RED "global? add|min|max noftz v2|v4" HINT, HALF "|" BFLOAT, 90},
    {"red", RED "global? add|min|max noftz v8" HINT, "f16|bf16", 90},
    {"membar", "cta|gl|sys", ""},
    {"fence", "sc|acq_rel|acquire|release? " SCOPE, ""},

    {"shfl", "sync up|down|bfly|idx", "b32"},
    {"vote", "sync all|any|uni", "pred"},
    {"vote", "sync ballot", "b32"},
    {"match", "sync any|all", "b32|b64"},
    {"redux", "sync add|min|max", "u32|s32"},
    {"redux", "sync and|or|xor", "b32"},
    {"activemask", "", "b32"},
    {"elect", "sync", "", 90},
    {"bar", "^warp ^sync", ""},
    {"bar", "^cta? ^sync|arrive", ""},
    {"bar", "^cta? ^red popc", "u32"},
    {"bar", "^cta? ^red and|or", "pred"},
    {"barrier", "^cta? ^sync|arrive aligned?", ""},
    {"barrier", "^cta? ^red popc aligned?", "u32"},
    {"barrier", "^cta? ^red and|or aligned?", "pred"},

    {"cp", "^async ca|cg shared|shared::cta global L2::64B|L2::128B|L2::256B?" HINT, ""},
    {"cp", "^async commit_group|wait_group|wait_all", ""},
    {"ldmatrix", MATRIX, "b16"},
    {"stmatrix", MATRIX, "b16", 90},
    {"movmatrix", "sync aligned m8n8 trans", "b16"},
    {"mma", MMA "m16n8k8|m16n8k16", "f32 f16 f16 f32"},
    {"mma", MMA "m16n8k8|m16n8k16", "f16 f16 f16 f16"},
    {"mma", MMA "m16n8k8|m16n8k16", "f32 bf16 bf16 f32"},
    {"mma", MMA "m16n8k4|m16n8k8", "f32 tf32 tf32 f32"},
    {"mma", MMA "m8n8k4", "f64 f64 f64 f64"},
    {"mma", MMA "m8n8k16|m16n8k16|m16n8k32 satfinite?", "s32 u8|s8 u8|s8 s32"},
    {"mma", MMA "m16n8k16|m16n8k32", "f32 e4m3|e5m2 e4m3|e5m2 f32", 89},
    {"mma", MMA "m16n8k16|m16n8k32", "f16 e4m3|e5m2 e4m3|e5m2 f16", 89},

    {"bra ret call", "uni?", ""},
    {"brx", "^idx uni?", ""},
    {"exit trap brkpt", "", ""},
    {"pmevent", "mask?", ""},
    {"nanosleep", "", "u32"},
    {"griddepcontrol", "launch_dependents|wait", "", 90},
};
// Modifiers that came with a part, wherever they stand.
const std::pair<std::string_view, int> kSince[] = {{"cluster", 90}};

using Words = std::vector<std::string_view>;
struct Item {
    Words words;
    bool optional = false, first = false;
};
struct Form {
    std::vector<Item> modifiers;
    std::vector<Words> types;
    int sm;
};

Words split(std::string_view text, char at) {
    Words parts;
    while (!text.empty()) {
        const size_t end = std::min(text.find(at), text.size());
        if (end) parts.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return parts;
}
bool has(const Words& words, std::string_view word) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

const std::vector<Form>& forms_of(std::string_view opcode) {
    static const std::map<std::string_view, std::vector<Form>> all = [] {
        std::map<std::string_view, std::vector<Form>> m;
        for (const FormRow& row : kForms) {
            Form f;
            f.sm = row.sm;
            for (std::string_view word : split(row.modifiers, ' ')) {
                Item item;
                if (word.front() == '^') item.first = true, word.remove_prefix(1);
                if (word.back() == '?') item.optional = true, word.remove_suffix(1);
                item.words = split(word, '|');
                f.modifiers.push_back(item);
            }
            for (std::string_view place : split(row.types, ' ')) f.types.push_back(split(place, '|'));
            for (std::string_view name : split(row.opcodes, ' ')) m[name].push_back(f);
        }
        return m;
    }();
    static const std::vector<Form> none;
    auto it = all.find(opcode);
    return it == all.end() ? none : it->second;
}

bool matches(const Form& f, const Words& modifiers, const Words& types) {
    if (types.size() != f.types.size() || modifiers.size() > f.modifiers.size()) return false;
    for (size_t i = 0; i < types.size(); ++i)
        if (!has(f.types[i], types[i])) return false;
    uint32_t used = 0;
    size_t head = 0;
    for (const Item& item : f.modifiers) {
        size_t at = item.first ? head : 0;
        const size_t end = item.first ? std::min(head + 1, modifiers.size()) : modifiers.size();
        while (at < end && (used >> at & 1 || !has(item.words, modifiers[at]))) ++at;
        if (at < end)
            used |= 1u << at, head += item.first;
        else if (!item.optional)
            return false;
    }
    return used == (1u << modifiers.size()) - 1;
}

}  // namespace

void check_form(const Instruction& in, const std::string& target) {
    static const Words packed = {"u16x2", "s16x2"};  // types of no register
    Words modifiers, types;
    for (size_t i = 1; i < in.parts.size(); ++i) {
        const std::string_view part = in.parts[i];
        (type_from_name(part) != Type::none || has(packed, part) ? types : modifiers).push_back(part);
    }
    int least = 1000;  // the least part of the rows that match
    for (const Form& f : forms_of(in.parts[0]))
        if (f.sm < least && matches(f, modifiers, types)) least = f.sm;
    if (least == 1000) throw DecodeError("no such form: modifiers and types do not go together");
    for (const auto& [word, sm] : kSince)
        if (has(modifiers, word)) least = std::max(least, sm);
    if (std::stoi(target.substr(3)) < least)  // "sm_90a": the parser has checked its beginning
        throw DecodeError("not before sm_" + std::to_string(least) + ", and .target is " + target);
}

}  // namespace vgpu
