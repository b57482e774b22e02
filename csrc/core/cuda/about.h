// What this library was built with.
#pragma once

namespace ivk {
const char* built_with();           // "nvcc 13.0.88"
const char* built_architectures();  // "sm80", several separated by semicolons
}  // namespace ivk
