// A stream of our own, and launches recorded from it once and then repeated as one.
#pragma once

#include <cstdint>

#include "core/stream.h"

namespace ivk {

class OwnStream {
  public:
    OwnStream();  // on the current device; does not wait for the default stream
    ~OwnStream();
    OwnStream(const OwnStream&) = delete;
    OwnStream& operator=(const OwnStream&) = delete;
    Stream handle() const { return stream_; }

  private:
    Stream stream_ = nullptr;
    int device_;
};

// begin, launches and copies on that stream by this thread, end: nothing runs meanwhile. Memory must stay where it is.
class Graph {
  public:
    Graph() = default;
    ~Graph();
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    void begin(Stream stream);
    void end();
    void abandon() noexcept;  // after an error between begin and end
    void launch(Stream stream) const;
    int64_t nodes() const { return nodes_; }

  private:
    Stream recording_ = nullptr;
    void* executable_ = nullptr;
    int64_t nodes_ = 0;
    int device_ = 0;
};

}  // namespace ivk
