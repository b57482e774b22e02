// Just enough JSON writing for the command-line tool.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vgpu {

class Json {
  public:
    Json& object();
    Json& array();
    Json& end();
    Json& key(std::string_view);
    Json& value(std::string_view);
    Json& value(const char* text) { return value(std::string_view(text)); }
    Json& value(bool);
    Json& value(int64_t);
    Json& value(uint64_t);
    Json& value(int32_t number) { return value(int64_t(number)); }
    Json& value(uint32_t number) { return value(uint64_t(number)); }
    template <class T>
    Json& field(std::string_view name, const T& what) {
        return key(name).value(what);
    }
    const std::string& text() const { return text_; }

  private:
    void separate();
    std::string text_, closing_;
};

}  // namespace vgpu
