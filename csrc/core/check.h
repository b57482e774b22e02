// Host checks. They stay on in Release, throw, and print the values that failed.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace ivk {

// Both cross from the kernels' library into the binding.
#define IVK_VISIBLE __attribute__((visibility("default")))

// A problem that a contract refuses; becomes internvl_kernels.UnsupportedError (a ValueError).
struct IVK_VISIBLE UnsupportedError : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// A backend that is not there, or failed while running; becomes internvl_kernels.BackendError (a RuntimeError).
struct IVK_VISIBLE BackendError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

namespace detail {
template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw UnsupportedError(text.str());
}
}  // namespace detail

// require(cond, "norm: x has ", cols, " columns; allowed: 1 and more")
template <typename... Parts>
void require(bool condition, const Parts&... parts) {
    if (!condition) detail::refuse(parts...);
}

}  // namespace ivk
