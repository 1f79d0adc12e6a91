// What the runner needs of an inference runtime, whichever it is: one model, prepared once, run
// sample by sample on raw elements. Inputs and outputs stand in the order of the model's main
// subgraph. All functions throw Error. A runtime may also crash: the caller runs it in a process of
// its own.

#ifndef TFQ_ANDROID_BENCH_RUNNER_RUNTIME_H_
#define TFQ_ANDROID_BENCH_RUNNER_RUNTIME_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "job.h"
#include "tensors.h"

namespace tfq {

// One operator of one profiled run.
struct OpEvent {
  std::string name;  // plain operators: name of the tensor they make; delegated ones: like `type`
  std::string type;  // operator of the model, or what the delegate calls its own operator
  bool delegated = false;
  int64_t node = 0;  // number of the operator in the model, or within the delegate's part of it
  double microseconds = 0;
};

class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual const char* name() const = 0;     // litert or tflite
  virtual std::string version() const = 0;  // as far as it can be told

  virtual void Load(const std::string& model) = 0;
  // Makes the model ready to run; `profile` turns the runtime's profiler on.
  virtual void Prepare(const Task& task, bool profile) = 0;

  // After Prepare.
  virtual const std::vector<TensorSpec>& inputs() const = 0;
  virtual const std::vector<TensorSpec>& outputs() const = 0;
  virtual void SetInput(size_t index, const void* data) = 0;
  virtual void Invoke() = 0;
  virtual void GetOutput(size_t index, void* data) = 0;
  // Forgets what earlier runs left in variable tensors.
  virtual void ResetState() = 0;

  // Operators of the main subgraph before any delegate took some; none where it cannot be told.
  virtual std::optional<int64_t> model_ops() const { return std::nullopt; }
  // Whether a delegate took all of them; none where it cannot be told.
  virtual std::optional<bool> fully_delegated() const { return std::nullopt; }
  // Names of what the runtime can run on; empty where it cannot be told.
  virtual std::vector<std::string> accelerators() const { return {}; }
  // Operators of the last run, in order. Only after Prepare with `profile`.
  virtual std::vector<OpEvent> TakeEvents() = 0;
};

// Opens the library and takes the runtime it holds. Throws Error.
std::unique_ptr<Runtime> OpenRuntime(const std::string& library, RuntimeKind kind);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_RUNTIME_H_
