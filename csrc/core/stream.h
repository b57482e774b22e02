// A CUDA stream by its handle, without CUDA's headers. Null is the default stream.
#pragma once

struct CUstream_st;

namespace ivk {
using Stream = CUstream_st*;
}
