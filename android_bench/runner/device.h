// What the system tells about itself: once, which machine this is; around every measurement,
// memory, frequencies, temperatures and battery. Whatever cannot be read is null in the record:
// phones differ in what they let a shell read.

#ifndef TFQ_ANDROID_BENCH_RUNNER_DEVICE_H_
#define TFQ_ANDROID_BENCH_RUNNER_DEVICE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "json.h"

namespace tfq {

struct MemoryUse {
  std::optional<int64_t> peak_kb;      // VmHWM
  std::optional<int64_t> resident_kb;  // VmRSS
  std::optional<int64_t> pss_kb;       // from smaps_rollup, or the sum over smaps
};

MemoryUse ReadMemory();
void WriteMemory(std::string_view key, const MemoryUse& memory, JsonWriter* json);

// {"frequencies_khz", "thermal", "battery"} of now; frequencies of the given processors.
std::string DeviceState(const std::vector<int>& processors);

// Members that name the machine, into an object that is open.
void WriteMachine(JsonWriter* json);

// Value of `key` in text of lines "key: value"; pure, for the tests.
std::optional<std::string> Field(std::string_view text, std::string_view key);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_DEVICE_H_
