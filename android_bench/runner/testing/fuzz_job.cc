// libFuzzer target: ParseJob on any bytes returns a job that keeps its promises, or throws Error.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "errors.h"
#include "job.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const tfq::Job job = tfq::ParseJob({reinterpret_cast<const char*>(data), size});
    if (job.tasks.empty() || job.library.empty()) std::abort();
    for (const tfq::Task& task : job.tasks) {
      const bool keeps_outputs = task.mode == tfq::Mode::kOutputs;
      if (task.id.empty() || task.model.empty() || task.inputs.empty()) std::abort();
      if (task.outputs.empty() == keeps_outputs || task.min_runs > task.max_runs) std::abort();
      if (task.threads < 1 || !(task.deadline_s > 0)) std::abort();
    }
  } catch (const tfq::Error&) {
  }
  return 0;
}
