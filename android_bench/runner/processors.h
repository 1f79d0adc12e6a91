// Which processors a process runs on, and how fast they run at the moment.

#ifndef TFQ_ANDROID_BENCH_RUNNER_PROCESSORS_H_
#define TFQ_ANDROID_BENCH_RUNNER_PROCESSORS_H_

#include <string>
#include <vector>

namespace tfq {

// Binds this process, and what it starts, to processors. Throws Error where the system refuses.
void BindToProcessors(const std::vector<int>& processors);

// The processors that this process may run on, ascending. Throws Error.
std::vector<int> AllowedProcessors();

// As a hexadecimal mask, without 0x.
std::string MaskText(const std::vector<int>& processors);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_PROCESSORS_H_
