// Changes single instructions of a kernel for the time of a launch (Options::mutate).
#pragma once

#include <string>
#include <vector>

#include "exec/op.h"

namespace vgpu {

struct Change {
    uint32_t line = 0;  // of the PTX
    std::string what;
};
// "KERNEL@LINE:delete,LINE:+1": throws std::runtime_error.
std::vector<Change> parse_mutation(const std::string& wish, std::string* kernel);

class Mutation {
  public:
    // Does nothing to another kernel than the one that `wish` names.
    Mutation(KernelImage& image, const std::string& wish);
    ~Mutation();
    Mutation(const Mutation&) = delete;
    std::string error;  // not empty: an instruction cannot be changed so

  private:
    void change(const Change&);
    KernelImage& image_;
    const size_t constants_;
    std::vector<Op> before_;
};

}  // namespace vgpu
