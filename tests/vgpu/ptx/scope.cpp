#include "ptx/scope.h"

#include <algorithm>
#include <iterator>

namespace vgpu {

bool Scopes::open() {
    if (depth_ >= kDeepest) return false;
    ++depth_;
    BlockScope block;
    block.parent = current_;
    current_ = int32_t(blocks_.size());
    blocks_.push_back(std::move(block));
    return true;
}

bool Scopes::close() {
    if (block().parent < 0) return false;
    current_ = block().parent;
    --depth_;
    return true;
}

const Name* Scopes::find(std::string_view name, std::vector<Register>& registers) {
    for (int32_t at = current_; at >= 0; at = blocks_[size_t(at)].parent) {
        BlockScope& block = blocks_[size_t(at)];
        const auto found = block.names.find(name);
        if (found != block.names.end()) return &found->second;
        if (block.ranges.empty()) continue;
        // %r12 may be number 12 of %r<…> or number 2 of %r1<…>.
        for (size_t split = name.size(); split > 1 && name.size() - split < 10;) {
            const char c = name[--split];
            if (c < '0' || c > '9') break;
            const auto range = block.ranges.find(name.substr(0, split));
            if (range == block.ranges.end() || (c == '0' && split + 1 < name.size())) continue;
            uint64_t number = 0;
            for (char digit : name.substr(split)) number = number * 10 + uint64_t(digit - '0');
            if (number >= range->second.count) continue;
            registers.push_back({std::string(name), range->second.type});
            Name made;
            made.index = int32_t(registers.size()) - 1;
            return &block.names.emplace(name, made).first->second;
        }
    }
    return nullptr;
}

bool Scopes::declare(std::string_view name, Name value) { return block().names.emplace(name, value).second; }

bool Scopes::declare_range(std::string_view prefix, RegisterRange range) {
    return block().ranges.emplace(prefix, range).second;
}

bool is_special_register(std::string_view name) {
    if (name.empty() || name[0] != '%') return false;
    static const std::string_view kWhole[] = {"%laneid",
                                              "%warpid",
                                              "%nwarpid",
                                              "%smid",
                                              "%nsmid",
                                              "%gridid",
                                              "%is_explicit_cluster",
                                              "%cluster_ctarank",
                                              "%cluster_nctarank",
                                              "%lanemask_eq",
                                              "%lanemask_le",
                                              "%lanemask_lt",
                                              "%lanemask_ge",
                                              "%lanemask_gt",
                                              "%clock",
                                              "%clock_hi",
                                              "%clock64",
                                              "%globaltimer",
                                              "%globaltimer_lo",
                                              "%globaltimer_hi",
                                              "%reserved_smem_offset_begin",
                                              "%reserved_smem_offset_end",
                                              "%reserved_smem_offset_cap",
                                              "%reserved_smem_offset_0",
                                              "%reserved_smem_offset_1",
                                              "%total_smem_size",
                                              "%aggr_smem_size",
                                              "%dynamic_smem_size",
                                              "%current_graph_exec"};
    static const std::string_view kVector[] = {"%tid",       "%ntid",       "%ctaid",         "%nctaid",
                                               "%clusterid", "%nclusterid", "%cluster_ctaid", "%cluster_nctaid"};
    if (std::find(std::begin(kWhole), std::end(kWhole), name) != std::end(kWhole)) return true;
    const size_t dot = name.find('.');
    const std::string_view base = name.substr(0, dot);
    if (std::find(std::begin(kVector), std::end(kVector), base) != std::end(kVector))
        return dot != name.npos && (name.substr(dot) == ".x" || name.substr(dot) == ".y" || name.substr(dot) == ".z");
    for (std::string_view prefix : {std::string_view("%envreg"), std::string_view("%pm")}) {
        if (name.substr(0, prefix.size()) != prefix) continue;
        std::string_view rest = name.substr(prefix.size());
        if (prefix == "%pm" && rest.size() > 3 && rest.substr(rest.size() - 3) == "_64") rest.remove_suffix(3);
        return !rest.empty() && rest.size() <= 2 && rest.find_first_not_of("0123456789") == rest.npos;
    }
    return false;
}

}  // namespace vgpu
