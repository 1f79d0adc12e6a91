// What the runner is asked to do: one library, and tasks, each a model on inputs in one mode. The
// text format is in FORMAT.md. `ParseJob` is a pure function over bytes and refuses whatever it
// does not know, so that a misspelt option is an error and not a measurement of something else.

#ifndef TFQ_ANDROID_BENCH_RUNNER_JOB_H_
#define TFQ_ANDROID_BENCH_RUNNER_JOB_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tfq {

enum class RuntimeKind { kAuto, kLiteRt, kTflite };
enum class Mode { kLatency, kOutputs, kProfile };
enum class Kernels { kXnnpack, kBuiltin };

struct Task {
  std::string id;
  Mode mode = Mode::kLatency;
  std::string model;
  std::string inputs;
  std::string outputs;  // only in the mode outputs
  Kernels kernels = Kernels::kXnnpack;
  std::string delegate;  // path; empty: none
  int threads = 1;
  std::string cpu_mask;  // hexadecimal; empty: the mask that the runner was started with
  double warmup_s = 1;
  int64_t min_runs = 50;
  int64_t max_runs = 10000;
  double min_seconds = 2;
  double deadline_s = 300;
  bool reset_state = false;
};

struct Job {
  std::string library;
  RuntimeKind runtime = RuntimeKind::kAuto;
  std::vector<Task> tasks;
};

const char* Name(RuntimeKind runtime);
const char* Name(Mode mode);
const char* Name(Kernels kernels);

// Throws Error, naming the line.
Job ParseJob(std::string_view text);

// Numbers of the processors in a hexadecimal mask, ascending. Throws Error.
std::vector<int> MaskProcessors(std::string_view mask);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_JOB_H_
