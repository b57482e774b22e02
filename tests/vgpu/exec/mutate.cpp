#include "exec/mutate.h"

#include <cstdlib>
#include <sstream>
#include <stdexcept>

namespace vgpu {

std::vector<Change> parse_mutation(const std::string& wish, std::string* kernel) {
    std::vector<Change> changes;
    if (wish.empty()) return changes;
    const size_t at = wish.rfind('@');
    if (at == wish.npos) throw std::runtime_error("KERNEL@LINE:delete is needed");
    *kernel = wish.substr(0, at);
    std::istringstream items(wish.substr(at + 1));
    for (std::string item; std::getline(items, item, ',');) {
        char* end = nullptr;
        Change c;
        c.line = uint32_t(std::strtoul(item.c_str(), &end, 10));
        c.what = *end == ':' ? end + 1 : "";
        if (!c.line || (c.what != "delete" && c.what != "mask" && c.what != "+1" && c.what != "-1"))
            throw std::runtime_error("KERNEL@LINE:delete, :mask, :+1 or :-1 is needed");
        changes.push_back(c);
    }
    if (changes.empty()) throw std::runtime_error("KERNEL@LINE:delete is needed");
    return changes;
}

Mutation::Mutation(KernelImage& image, const std::string& wish) : image_(image), constants_(image.constants.size()) {
    std::string kernel;
    const std::vector<Change> changes = parse_mutation(wish, &kernel);
    if (kernel != image.info.name) return;
    for (const Change& c : changes) change(c);
}

Mutation::~Mutation() {
    for (const Op& op : before_) image_.code[op.pc] = op;
    image_.constants.resize(constants_);
}

void Mutation::change(const Change& c) {
    Op* found = nullptr;
    int count = 0;
    for (Op& op : image_.code)
        if (image_.where[op.pc].line == c.line) found = &op, ++count;
    // What is deleted may have no result: what its register held before, of some other one, would pass for it.
    auto changeable = [&](const Op& op) {
        const std::string& opcode = *image_.where[op.pc].opcode;
        if (c.what == "mask") return opcode.compare(0, 9, "shfl.sync") == 0;
        if (c.what != "delete") return opcode == "cp.async.wait_group";
        return op.destinations == 0 && op.cls != Class::collective && !(op.cls == Class::barrier && op.x);
    };
    if (count != 1 || !changeable(*found)) {
        error = "mutate: PTX line " + std::to_string(c.line) + " of " + image_.info.name +
                " holds no single instruction for :" + c.what;
        return;
    }
    before_.push_back(*found);
    if (c.what == "mask") {
        found->e = uint32_t(image_.constants.size()) | kConstantRow;
        for (int i = 0; i < 128; ++i) image_.constants.push_back(i % 4 == 3 ? 0x7f : 0xff);
    } else if (c.what == "delete") {
        found->fn = [](Warp&, const Op&, uint32_t) { return Next::step; };
        found->guard = kNoRow;
        found->sources = found->musts = found->destinations = 0;
    } else {
        found->imm += c.what == "+1" ? 1 : -1;
    }
}

}  // namespace vgpu
