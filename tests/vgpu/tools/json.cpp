#include "tools/json.h"

#include <cstdio>

namespace vgpu {

void Json::separate() {
    if (!text_.empty() && text_.back() != '{' && text_.back() != '[' && text_.back() != ':') text_ += ',';
}

Json& Json::object() {
    separate();
    text_ += '{';
    closing_ += '}';
    return *this;
}

Json& Json::array() {
    separate();
    text_ += '[';
    closing_ += ']';
    return *this;
}

Json& Json::end() {
    text_ += closing_.back();
    closing_.pop_back();
    return *this;
}

Json& Json::key(std::string_view name) {
    value(name);
    text_ += ':';
    return *this;
}

Json& Json::value(std::string_view text) {
    separate();
    text_ += '"';
    for (char c : text) {
        if (c == '"' || c == '\\') text_ += '\\';
        if (c >= 32 && c < 127) {
            text_ += c;
        } else {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", unsigned(static_cast<unsigned char>(c)));
            text_ += escape;
        }
    }
    text_ += '"';
    return *this;
}

Json& Json::value(bool flag) {
    separate();
    text_ += flag ? "true" : "false";
    return *this;
}

Json& Json::value(int64_t number) {
    separate();
    text_ += std::to_string(number);
    return *this;
}

Json& Json::value(uint64_t number) {
    separate();
    text_ += std::to_string(number);
    return *this;
}

}  // namespace vgpu
