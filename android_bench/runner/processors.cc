#include "processors.h"

#include <sched.h>

#include "errors.h"
#include "job.h"

namespace tfq {

void BindToProcessors(const std::vector<int>& processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int processor : processors) {
    if (processor >= static_cast<int>(8 * sizeof(set))) {
      throw Error("cpu_mask names processor " + std::to_string(processor) +
                  ", and this system counts to " + std::to_string(8 * sizeof(set) - 1));
    }
    CPU_SET(static_cast<size_t>(processor), &set);
  }
  if (sched_setaffinity(0, sizeof(set), &set) != 0) {
    throw SystemError("run on the processors of", "cpu_mask " + MaskText(processors));
  }
}

std::vector<int> AllowedProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    throw SystemError("read the processors of", "this process");
  }
  std::vector<int> processors;
  for (size_t i = 0; i < 8 * sizeof(set); ++i) {
    if (CPU_ISSET(i, &set)) processors.push_back(static_cast<int>(i));
  }
  return processors;
}

std::string MaskText(const std::vector<int>& processors) {
  std::string digits;  // lowest first
  for (int processor : processors) {
    const size_t digit = static_cast<size_t>(processor) / 4;
    if (digits.size() <= digit) digits.resize(digit + 1, '\0');
    digits[digit] = static_cast<char>(digits[digit] | 1 << processor % 4);
  }
  std::string text;
  for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit) {
    text += "0123456789abcdef"[static_cast<size_t>(*digit)];
  }
  return text.empty() ? "0" : text;
}

}  // namespace tfq
