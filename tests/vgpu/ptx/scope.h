// Names of a function body: blocks declare registers, variables and labels again and again under the same names.
#pragma once

#include <string_view>
#include <unordered_map>
#include <vector>

#include "ptx/ir.h"

namespace vgpu {

struct Name {
    enum Kind : uint8_t { reg, vector_reg, variable } kind = reg;
    uint8_t symbol_scope = scope_local;  // variable
    uint8_t width = 1;                   // vector_reg: 2 or 4 registers from index on
    int32_t index = -1;
};

struct RegisterRange {  // `%f<12>` declares %f0 … %f11; a register is made when it is first mentioned
    uint64_t count = 0;
    Type type = Type::none;
};

struct BlockScope {
    int32_t parent = -1;
    std::unordered_map<std::string_view, Name> names;
    std::unordered_map<std::string_view, RegisterRange> ranges;
    std::unordered_map<std::string_view, int32_t> labels;                         // instruction index
    std::unordered_map<std::string_view, std::vector<std::string_view>> targets;  // .branchtargets
    std::unordered_map<std::string_view, int32_t> prototypes;                     // .callprototype
};

class Scopes {
  public:
    static constexpr int kDeepest = 256;

    Scopes() { open(); }
    bool open();   // false if nested too deep
    bool close();  // false if this is the function's own block
    int32_t current() const { return current_; }
    int32_t size() const { return int32_t(blocks_.size()); }
    BlockScope& block() { return blocks_[size_t(current_)]; }
    const BlockScope& block(int32_t index) const { return blocks_[size_t(index)]; }

    // The innermost declaration, or null. May append to registers.
    const Name* find(std::string_view name, std::vector<Register>& registers);
    bool declare(std::string_view name, Name value);  // false if this block has the name already
    bool declare_range(std::string_view prefix, RegisterRange range);

    // A label, target list or prototype as seen from a block.
    template <class Value>
    const Value* find_in(int32_t block, std::unordered_map<std::string_view, Value> BlockScope::* map,
                         std::string_view name) const {
        for (; block >= 0; block = blocks_[size_t(block)].parent) {
            const auto found = (blocks_[size_t(block)].*map).find(name);
            if (found != (blocks_[size_t(block)].*map).end()) return &found->second;
        }
        return nullptr;
    }

  private:
    std::vector<BlockScope> blocks_;  // all of the function; labels are looked up when it is complete
    int32_t current_ = -1;
    int depth_ = 0;
};

bool is_special_register(std::string_view name);

}  // namespace vgpu
