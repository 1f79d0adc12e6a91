// tfq_runner JOB RESULTS: does the tasks of a job one after the other, each in a process of its
// own, and appends one record for each. FORMAT.md describes both files. Exit status: 0 every task
// has a record, 1 stopped by a signal, 2 the job cannot be used, 3 the results cannot be written.

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "child.h"
#include "device.h"
#include "errors.h"
#include "job.h"
#include "json.h"
#include "mapped_file.h"
#include "measure.h"
#include "results.h"
#include "runtime.h"
#include "sha256.h"

namespace tfq {
namespace {

constexpr const char* kVersion = "1";
constexpr double kProbeDeadline = 60;  // or that of the most patient task

Job ReadJob(const std::string& path) {
  const MappedFile file(path);
  try {
    return ParseJob({reinterpret_cast<const char*>(file.data()), file.size()});
  } catch (const Error& error) {
    throw Error(path + ", " + error.what());
  }
}

const char* Status(Ending ending) {
  switch (ending) {
    case Ending::kResult:
      return "ok";
    case Ending::kError:
      return "error";
    case Ending::kSignal:
      return "signal";
    case Ending::kTimeout:
      return "timeout";
    case Ending::kExit:
    case Ending::kStopped:
      break;
  }
  return "exit";
}

// The runtimes put their reasons on standard error and return a number; the last reason, or
// nothing.
std::string LastReason(std::string_view output) {
  constexpr std::string_view kMark = "ERROR: ";
  const size_t at = output.rfind(kMark);
  if (at == std::string_view::npos) return "";
  output.remove_prefix(at + kMark.size());
  return "; it said: " + std::string(output.substr(0, output.find('\n')));
}

std::string Explanation(const ChildEnd& end, double deadline_s) {
  switch (end.ending) {
    case Ending::kError:
      return end.text + LastReason(end.output_tail);
    case Ending::kSignal:
      return "the runtime was ended by the signal " + std::to_string(end.code) + " (" +
             strsignal(end.code) + ") in the stage " + end.stage + LastReason(end.output_tail);
    case Ending::kTimeout: {
      char seconds[32];
      std::snprintf(seconds, sizeof(seconds), "%g", deadline_s);
      return "still in the stage " + end.stage + " after " + seconds + " s, the deadline";
    }
    default:
      return "the process exited with the status " + std::to_string(end.code) + " in the stage " +
             end.stage + LastReason(end.output_tail);
  }
}

// Members that say how a child ended, up to its result, into an object that is open.
void WriteEnd(const ChildEnd& end, double deadline_s, JsonWriter* json) {
  const bool ok = end.ending == Ending::kResult;
  json->Member("status", Status(end.ending));
  json->Key("error");
  if (ok) {
    json->Null();
  } else {
    json->String(Explanation(end, deadline_s));
  }
  json->Member("signal",
               end.ending == Ending::kSignal ? std::optional<int>(end.code) : std::nullopt);
  json->Member("stage", std::string_view(end.stage));
  json->Member("wall_s", end.seconds, 6);
  json->Member("output_tail", std::string_view(end.output_tail));
}

// Which machine, runner and library the records that follow come from. The library is opened in a
// child, too, and that it cannot be is no reason to stop: every task will say so.
std::string MachineRecord(const Job& job) {
  double deadline_s = 0;
  for (const Task& task : job.tasks) deadline_s = std::max(deadline_s, task.deadline_s);
  deadline_s = std::min(deadline_s, kProbeDeadline);
  const ChildEnd probe = RunInChild(
      [&](const Stage& stage) {
        stage("open_library");
        const std::unique_ptr<Runtime> runtime = OpenRuntime(job.library, job.runtime);
        JsonWriter json;
        json.BeginObject().Member("name", runtime->name());
        json.Member("version", std::string_view(runtime->version())).EndObject();
        return json.text();
      },
      deadline_s);
  const auto hash = [](const std::string& path, JsonWriter* json) {
    try {
      json->String(FileSha256(path));
    } catch (const Error&) {
      json->Null();
    }
  };
  JsonWriter json;
  json.BeginObject().Member("kind", "machine").Member("runner_version", kVersion);
  json.Key("runner_sha256");
  hash("/proc/self/exe", &json);
  json.Member("library", std::string_view(job.library)).Key("library_sha256");
  hash(job.library, &json);
  json.Key("runtime");
  if (probe.ending == Ending::kResult) {
    json.Raw(probe.text).Key("runtime_error").Null();
  } else {
    json.Null().Member("runtime_error", std::string_view(Explanation(probe, deadline_s)));
  }
  WriteMachine(&json);
  json.EndObject();
  return json.text();
}

std::string TaskRecord(const Task& task, const ChildEnd& end) {
  JsonWriter json;
  json.BeginObject().Member("kind", "task").Member("id", std::string_view(task.id));
  json.Member("mode", Name(task.mode));
  WriteEnd(end, task.deadline_s, &json);
  json.Key("task").BeginObject().Member("model", std::string_view(task.model));
  json.Member("inputs", std::string_view(task.inputs));
  json.Member("outputs", std::string_view(task.outputs)).Member("kernels", Name(task.kernels));
  json.Member("delegate", std::string_view(task.delegate)).Member("threads", task.threads);
  json.Member("cpu_mask", std::string_view(task.cpu_mask)).Member("warmup_s", task.warmup_s, 3);
  json.Member("min_runs", task.min_runs).Member("max_runs", task.max_runs);
  json.Member("min_seconds", task.min_seconds, 3).Member("deadline_s", task.deadline_s, 3);
  json.Member("reset_state", task.reset_state).EndObject();
  json.Key("result");
  if (end.ending == Ending::kResult) {
    json.Raw(end.text);
  } else {
    json.Null();
  }
  json.EndObject();
  return json.text();
}

int Run(const std::string& job_path, const std::string& results_path) {
  Job job;
  try {
    job = ReadJob(job_path);
  } catch (const Error& error) {
    std::fprintf(stderr, "tfq_runner: %s\n", error.what());
    return 2;
  }
  try {
    HandleSignals();
    Results results(results_path);
    results.Append(MachineRecord(job));
    for (const Task& task : job.tasks) {
      if (results.finished().count(task.id)) continue;
      const ChildEnd end = RunInChild([&](const Stage& stage) { return Measure(job, task, stage); },
                                      task.deadline_s);
      if (end.ending == Ending::kStopped || StopSignal() != 0) {
        std::fprintf(stderr, "tfq_runner: stopped by the signal %d\n", StopSignal());
        return 1;
      }
      results.Append(TaskRecord(task, end));
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "tfq_runner: %s\n", error.what());
    return 3;
  }
  return 0;
}

}  // namespace
}  // namespace tfq

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s JOB RESULTS\n", argc > 0 ? argv[0] : "tfq_runner");
    return 2;
  }
  return tfq::Run(argv[1], argv[2]);
}
