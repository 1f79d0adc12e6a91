// Writes JSON text piece by piece, always on one line and always valid: strings are escaped, bytes
// that are no UTF-8 become U+FFFD, and numbers that JSON cannot say (infinite, not a number) become
// null.

#ifndef TFQ_ANDROID_BENCH_RUNNER_JSON_H_
#define TFQ_ANDROID_BENCH_RUNNER_JSON_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace tfq {

// The text as a JSON string, quotes included.
std::string JsonString(std::string_view text);

class JsonWriter {
 public:
  JsonWriter& BeginObject();
  JsonWriter& EndObject();
  JsonWriter& BeginArray();
  JsonWriter& EndArray();
  JsonWriter& Key(std::string_view key);

  JsonWriter& String(std::string_view text);
  JsonWriter& Number(double value, int decimals);
  JsonWriter& Bool(bool value);
  JsonWriter& Null();
  // Text that is JSON already.
  JsonWriter& Raw(std::string_view json);

  template <typename Int>
  JsonWriter& Integer(Int value) {
    static_assert(std::is_integral_v<Int>, "an integer is expected");
    return Raw(std::to_string(value));
  }

  // Members of an object, in one call.
  JsonWriter& Member(std::string_view key, std::string_view text) { return Key(key).String(text); }
  JsonWriter& Member(std::string_view key, const char* text) { return Key(key).String(text); }
  JsonWriter& Member(std::string_view key, bool value) { return Key(key).Bool(value); }
  JsonWriter& Member(std::string_view key, double value, int decimals) {
    return Key(key).Number(value, decimals);
  }
  JsonWriter& Member(std::string_view key, std::optional<double> value, int decimals) {
    return value ? Key(key).Number(*value, decimals) : Key(key).Null();
  }
  template <typename Int, std::enable_if_t<std::is_integral_v<Int>, int> = 0>
  JsonWriter& Member(std::string_view key, Int value) {
    return Key(key).Integer(value);
  }
  template <typename Int>
  JsonWriter& Member(std::string_view key, std::optional<Int> value) {
    return value ? Member(key, *value) : Key(key).Null();
  }

  const std::string& text() const { return text_; }

 private:
  void BeforeValue();

  std::string text_;
  std::vector<bool> has_items_;  // of the objects and arrays that are open
  bool after_key_ = false;
};

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_JSON_H_
