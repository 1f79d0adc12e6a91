// The one exception of the runner. Its text is one line for the person who reads the record: what
// was got, what was expected and, where there is something to do, what. Everything that can go
// wrong with a file, a library or a model throws it; programming errors do not.

#ifndef TFQ_ANDROID_BENCH_RUNNER_ERRORS_H_
#define TFQ_ANDROID_BENCH_RUNNER_ERRORS_H_

#include <stdexcept>
#include <string>

namespace tfq {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// "cannot ACTION PATH: text of errno".
Error SystemError(const std::string& action, const std::string& path);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_ERRORS_H_
