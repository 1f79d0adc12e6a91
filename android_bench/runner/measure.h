// The three things that the runner does with a model: time it, keep its outputs, profile its
// operators. Runs in the child process; what it returns is the `result` of the record, described in
// FORMAT.md.

#ifndef TFQ_ANDROID_BENCH_RUNNER_MEASURE_H_
#define TFQ_ANDROID_BENCH_RUNNER_MEASURE_H_

#include <string>
#include <vector>

#include "child.h"
#include "job.h"
#include "tensors.h"

namespace tfq {

// JSON object. Throws Error.
std::string Measure(const Job& job, const Task& task, const Stage& stage);

// For every input of the model the number of the container's tensor that feeds it: by name where
// every name is found, else by order. Throws Error where the number, a type or a size differs.
std::vector<size_t> BindInputs(const std::vector<TensorSpec>& model,
                               const std::vector<StoredTensor>& stored);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_MEASURE_H_
