// The file of results: one JSON object a line, appended whole and forced to the storage before the
// next task begins. What a killed runner left is taken up again: tasks with a complete line are
// done, and a torn last line is cut off. Only one runner may write to a file at a time.

#ifndef TFQ_ANDROID_BENCH_RUNNER_RESULTS_H_
#define TFQ_ANDROID_BENCH_RUNNER_RESULTS_H_

#include <set>
#include <string>
#include <string_view>

namespace tfq {

// The tasks named by complete lines of results; pure, for the tests.
std::set<std::string> FinishedTasks(std::string_view text);

class Results {
 public:
  // Throws Error where the file cannot be read and written, or another runner writes to it.
  explicit Results(const std::string& path);
  ~Results();
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;

  const std::set<std::string>& finished() const { return finished_; }
  // `record` without a newline. Throws Error where it cannot be stored.
  void Append(std::string record);

 private:
  std::string path_;
  int file_ = -1;
  std::set<std::string> finished_;
};

// The beginning of a task's record, up to and without the quote that ends the name.
constexpr std::string_view kTaskRecord = "{\"kind\":\"task\",\"id\":\"";

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_RESULTS_H_
