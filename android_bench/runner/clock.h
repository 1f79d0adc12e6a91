// Seconds of the monotonic clock, to the nanosecond; the zero is arbitrary.

#ifndef TFQ_ANDROID_BENCH_RUNNER_CLOCK_H_
#define TFQ_ANDROID_BENCH_RUNNER_CLOCK_H_

#include <time.h>

namespace tfq {

inline double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_CLOCK_H_
