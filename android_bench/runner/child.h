// Work that may crash, hang or abort, in a process of its own with a deadline. The child tells
// through a pipe what stage it is at and at last its result; the parent sleeps until there is
// something to read, the child ends, the deadline passes or a signal asks the runner to stop, so
// that it takes no time from what is measured. A child that outlives its deadline is killed with
// all processes it started, and a child whose parent dies is killed by the system.

#ifndef TFQ_ANDROID_BENCH_RUNNER_CHILD_H_
#define TFQ_ANDROID_BENCH_RUNNER_CHILD_H_

#include <functional>
#include <string>
#include <string_view>

namespace tfq {

// How a child ended.
enum class Ending {
  kResult,   // `text` is what the work returned
  kError,    // `text` is the message of an Error that the work threw
  kSignal,   // `code` is the signal that ended it
  kTimeout,  // the deadline passed
  kExit,     // it exited without a result; `code` is its exit status
  kStopped,  // the runner was asked to stop; `code` is the signal
};

struct ChildEnd {
  Ending ending = Ending::kExit;
  int code = 0;
  std::string text;
  std::string stage;        // the last one that was told
  std::string output_tail;  // the last 2000 bytes that it wrote to standard output and error
  double seconds = 0;
};

// Says what the work does next.
using Stage = std::function<void(std::string_view)>;

// Takes over SIGTERM, SIGHUP and SIGINT, unless they are ignored, and SIGCHLD. To be called once,
// before RunInChild.
void HandleSignals();

// The signal that asked the runner to stop; 0 for none.
int StopSignal();

// Throws Error where no process can be started.
ChildEnd RunInChild(const std::function<std::string(const Stage&)>& work, double deadline_s);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_CHILD_H_
